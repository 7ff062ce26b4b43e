"""The rules for a schema in a request. The texts of refusals are those of docs/wire.md, section 10."""

from __future__ import annotations

import json
import re
from typing import Final

from frontend.collections.schema_shape import (
    DOCUMENT_KEY,
    EMBEDDING_KEY,
    CustomerKey,
    GivenSchema,
    SparseConfig,
    ValueTypes,
    VectorConfig,
)

_CUSTOMER_KEY: Final = re.compile(r"projects/.+/locations/.+/keyRings/.+/cryptoKeys/.+", re.DOTALL)


def schema_problem(schema: GivenSchema) -> str | None:
    """Why this schema is refused although its shape is right, None when it is fine."""
    return (
        _defaults_problem(schema.defaults)
        or next((problem for key, types in schema.keys.items() if (problem := _key_problem(key, types))), None)
        or _customer_key_problem(schema.cmek)
    )


def _defaults_problem(types: ValueTypes) -> str | None:
    vector = types.float_list and types.float_list.vector_index
    if vector and vector.enabled:
        return "Vector index cannot be enabled by default. It can only be enabled on #embedding field."
    sparse = types.sparse_vector and types.sparse_vector.sparse_vector_index
    if sparse and sparse.enabled:
        return "Sparse vector index cannot be enabled by default. Please enable sparse vector index on specific keys."
    text = types.string and types.string.fts_index
    if text and text.enabled:
        return (
            "Full text search / regular expression index cannot be enabled by default. "
            "It can only be enabled on #document field."
        )
    # A source key in the defaults never reaches #embedding, so it is stored and not checked.
    return _graph_problem(vector.config) if vector else None


def _key_problem(key: str, types: ValueTypes) -> str | None:
    return (
        _reserved_problem(key, types)
        or _vector_problem(key, types)
        or _sparse_problem(types)
        or _text_problem(key, types)
    )


def _reserved_problem(key: str, types: ValueTypes) -> str | None:
    others = (types.sparse_vector, types.int, types.float, types.bool)
    if key == DOCUMENT_KEY:
        if any((*others, types.float_list)):
            return f"Document field cannot have any value types other than string: {key}"
    elif key == EMBEDDING_KEY:
        if any((*others, types.string)):
            return f"Embedding field cannot have any value types other than float_list: {key}"
    elif key.startswith("#"):
        return f"key cannot begin with '#'. Keys starting with '#' are reserved for system use: {key}"
    return None


def _vector_problem(key: str, types: ValueTypes) -> str | None:
    index = types.float_list and types.float_list.vector_index
    if not index:
        return None
    if index.enabled and key != EMBEDDING_KEY:
        return f"Vector index can only be enabled on #embedding field: {key}"
    return _vector_config_problem(index.config)


def _vector_config_problem(config: VectorConfig) -> str | None:
    if config.source_key not in (None, DOCUMENT_KEY):
        return "Vector index can only source from #document"
    return _graph_problem(config)


def _graph_problem(config: VectorConfig) -> str | None:
    if config.hnsw is not None and config.spann is not None:
        return "Both spann and hnsw config cannot be present at the same time."
    return None


def _sparse_problem(types: ValueTypes) -> str | None:
    index = types.sparse_vector and types.sparse_vector.sparse_vector_index
    return _sparse_source_problem(index.config, index.enabled) if index else None


def _sparse_source_problem(config: SparseConfig, enabled: bool) -> str | None:
    if config.source_key is None:
        return None
    if enabled and config.embedding_function is None:
        return (
            "If source_key is provided then embedding_function must also be provided "
            "since there is no default embedding function."
        )
    if config.source_key.startswith("#") and config.source_key != DOCUMENT_KEY:
        return "source_key cannot begin with '#'. The only valid key starting with '#' is Key.DOCUMENT or '#document'."
    return None


def _text_problem(key: str, types: ValueTypes) -> str | None:
    text = types.string and types.string.fts_index
    if text and text.enabled and key != DOCUMENT_KEY:
        return f"Full text search / regular expression index can only be enabled on #document field: {key}"
    exact = types.string and types.string.string_inverted_index
    if exact and exact.enabled and key == DOCUMENT_KEY:
        return f"String inverted index can not be enabled on #document key: {key}"
    return None


def _customer_key_problem(key: CustomerKey | None) -> str | None:
    if key is None or _CUSTOMER_KEY.fullmatch(key.gcp):
        return None
    return f"CMEK does not match expected pattern: Gcp({json.dumps(key.gcp, ensure_ascii=False)})"
