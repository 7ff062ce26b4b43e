"""The model against the reference implementation, whose vectors are recorded or come with the Debian catalogue."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from deploy import real_data
from embedder.config import packaged_model
from embedder.model import Model
from embedder.tokens import read_tokenizer, token_ids
from embedder.weights import TOKENS_MAX, read_weights
from shared.errors import Corrupt
from shared.vectors.arrays import AnyArray
from tests.embedder.recorded import TEXTS, VECTORS, cosine_distances
from tests.missing import needs_real_data

AGREEMENT = 1e-5
"""A hundred times closer than what is promised."""


def test_vectors_are_those_of_the_reference_for_any_kind_of_text(model: Model, tokenizer: Tokenizer) -> None:
    vectors = model.embed(token_ids(tokenizer, TEXTS))
    assert max(cosine_distances(vectors, VECTORS)) < AGREEMENT
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)


def test_vectors_are_those_of_the_catalogue(model: Model, needs_model: None) -> None:
    needs_real_data()
    folder = packaged_model()
    assert folder is not None
    tokenizer = read_tokenizer(folder / "tokenizer.json")
    tokenizer.enable_truncation(64)  # as the catalogue was made
    rows = pq.read_table(real_data.PACKAGES, columns=["document", "embedding"])
    rows = rows.take(np.random.default_rng(7).choice(len(rows), 60, replace=False))
    theirs = np.array(rows["embedding"].to_pylist(), np.float32)
    ours = model.embed(token_ids(tokenizer, rows["document"].to_pylist()))
    assert max(cosine_distances(ours, theirs)) < AGREEMENT


def test_a_text_has_the_same_vector_in_whatever_company(model: Model, tokenizer: Tokenizer) -> None:
    ids = token_ids(tokenizer, TEXTS)
    together = model.embed(ids)
    for place, text in enumerate(ids):
        assert np.allclose(model.embed([text])[0], together[place], atol=2e-6)
    twice = model.embed([ids[0], ids[0], ids[3], ids[0]])
    assert np.allclose(twice[[0, 1, 3]], together[0], atol=2e-6)


def test_texts_are_cut_at_the_models_length(tokenizer: Tokenizer) -> None:
    (ids,) = token_ids(tokenizer, ["word " * 1000])
    assert len(ids) == TOKENS_MAX
    assert (ids[0], ids[-1]) == (101, 102)


def test_a_file_that_is_another_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Corrupt):
        read_weights(_saved(tmp_path / "empty", {}))
    wrong = {"embeddings.position_embeddings.weight": np.zeros((4, 5), np.float32)}
    with pytest.raises(Corrupt, match="does not hold all-MiniLM-L6-v2"):
        read_weights(_saved(tmp_path / "wrong", wrong))
    (tmp_path / "garbage").write_bytes(b"nothing of the kind")
    with pytest.raises(Corrupt):
        read_weights(tmp_path / "garbage")


def _saved(path: Path, tensors: dict[str, AnyArray]) -> Path:
    save_file(tensors, path)
    return path
