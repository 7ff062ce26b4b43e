"""Texts to token ids, by the tokenizer that belongs to the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from embedder.weights import TOKENS_MAX
from shared.vectors.arrays import TokenIds


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer in a JSON file, but for what that file says of lengths: a text is cut at TOKENS_MAX tokens and
    never padded.
    """
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(TOKENS_MAX)
    tokenizer.no_padding()
    return tokenizer


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenIds]:
    """The token ids of each text, int32 [n], with [CLS] and [SEP] at its ends. Releases the interpreter while it
    works.
    """
    return [np.array(encoding.ids, np.int32) for encoding in tokenizer.encode_batch_fast(texts)]
