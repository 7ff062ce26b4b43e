"""From text to token ids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from embedder.weights import TOKENS_MAX
from shared.vectors.arrays import TokenIds


def read_tokenizer(path: Path) -> Tokenizer:
    """The model's own, but for what its file says of lengths: a text is cut at TOKENS_MAX and never padded."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.enable_truncation(TOKENS_MAX)
    tokenizer.no_padding()
    return tokenizer


def token_ids(tokenizer: Tokenizer, texts: Sequence[str]) -> list[TokenIds]:
    """One array per text, of at least the two marks at its ends. Releases the interpreter while it works."""
    return [np.array(encoding.ids, np.int32) for encoding in tokenizer.encode_batch_fast(texts)]
