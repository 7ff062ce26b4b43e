"""What an operator may say, and what is told of mistakes."""

import pytest

from frontend.config import FrontendConfig
from shared.process.config import ConfigError, read

BASE = {"REDIS_URL": "redis://nowhere", "POLYCHROME_BUCKET_URL": "memory://"}
ENDPOINTS = "POLYCHROME_FRONTEND_EMBEDDING_ENDPOINTS"
KEYS = "POLYCHROME_FRONTEND_EMBEDDING_KEYS"
LOCAL = "POLYCHROME_FRONTEND_LOCAL_EMBEDDER_NAMES"
DEFAULT = "POLYCHROME_FRONTEND_EMBEDDER_DEFAULT"
OPENAI = '{"openai": {"url": "https://api.openai.com/v1/embeddings", "model": "text-embedding-3-small"}}'


def test_nothing_is_registered_by_itself() -> None:
    config = read(FrontendConfig, BASE | {ENDPOINTS: "", KEYS: "", LOCAL: "", DEFAULT: ""})
    assert (config.local_embedder_names, config.embedding_endpoints, config.embedder_default) == ((), (), "")
    assert config == read(FrontendConfig, BASE)


def test_endpoints_have_names_and_keys_stay_out_of_sight() -> None:
    config = read(FrontendConfig, BASE | {ENDPOINTS: OPENAI, KEYS: '{"openai": "sk-1"}', DEFAULT: "openai"})
    ((name, endpoint),) = config.embedding_endpoints
    assert (name, endpoint.model, endpoint.batch, endpoint.attempts) == ("openai", "text-embedding-3-small", 64, 3)
    assert dict(config.embedding_keys) == {"openai": "sk-1"}
    assert "sk-1" not in repr(config)


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({ENDPOINTS: "openai"}, "expected a JSON object of endpoints by name"),
        ({ENDPOINTS: '{"a": {"model": "m"}}'}, "url"),
        ({ENDPOINTS: '{"a": {"url": "https://x/v1/embeddings", "model": "m", "key": "sk-1"}}'}, "key"),
        ({ENDPOINTS: '{"a": {"url": "file:///etc/passwd", "model": "m"}}'}, "the url of a is none such as"),
        ({ENDPOINTS: '{"a": {"url": "https://x/v1/embeddings", "model": "m", "attempts": 0}}'}, "attempts"),
        ({KEYS: '{"openai": "sk-1"}'}, "'openai' is none of the endpoints"),
        ({KEYS: '["sk-1"]'}, "expected a JSON object of keys"),
        ({ENDPOINTS: OPENAI, LOCAL: "default,openai"}, "'openai' names two embedding functions"),
        ({LOCAL: "default", DEFAULT: "openai"}, "'openai' names no embedding function"),
    ],
)
def test_mistakes_are_told_without_the_keys(environ: dict[str, str], problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        read(FrontendConfig, BASE | environ)
    if KEYS in environ:
        assert "sk-1" not in str(caught.value)
