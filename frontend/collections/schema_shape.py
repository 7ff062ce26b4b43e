"""The shape of a schema in a request, for msgspec. An older spelling of members is understood as well."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from frontend.collections.configuration import Count, EmbeddingFunction, GivenNumbers
from frontend.parse.shapes import shaped, wrong_shape
from shared.vectors.space import Space

DOCUMENT_KEY: Final = "#document"
EMBEDDING_KEY: Final = "#embedding"

# Older spellings of value types and indexes, and today's.
_OLD_TYPES: Final = {
    "#string": "string",
    "#float_list": "float_list",
    "#sparse_vector": "sparse_vector",
    "#int": "int",
    "#float": "float",
    "#bool": "bool",
}
_OLD_INDEXES: Final = {
    "$fts_index": "fts_index",
    "$string_inverted_index": "string_inverted_index",
    "$vector_index": "vector_index",
    "$sparse_vector_index": "sparse_vector_index",
    "$int_inverted_index": "int_inverted_index",
    "$float_inverted_index": "float_inverted_index",
    "$bool_inverted_index": "bool_inverted_index",
}


class SpannNumbers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """SPANN parameters: understood and dropped, the index here is HNSW."""

    search_nprobe: Count | None = None
    search_rng_factor: float | None = None
    search_rng_epsilon: float | None = None
    nreplica_count: Count | None = None
    write_rng_factor: float | None = None
    write_rng_epsilon: float | None = None
    split_threshold: Count | None = None
    num_samples_kmeans: Count | None = None
    initial_lambda: float | None = None
    reassign_neighbor_count: Count | None = None
    merge_threshold: Count | None = None
    num_centers_to_merge_to: Count | None = None
    write_nprobe: Count | None = None
    ef_construction: Count | None = None
    ef_search: Count | None = None
    max_neighbors: Count | None = None
    center_drift_threshold: float | None = None
    quantize: Any = None


class VectorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of an index of dense vectors."""

    space: Space | None = None
    embedding_function: EmbeddingFunction | None = None
    source_key: str | None = None
    hnsw: GivenNumbers | None = None
    spann: SpannNumbers | None = None


class SparseConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Configuration of an index of sparse vectors."""

    embedding_function: EmbeddingFunction | None = None
    source_key: str | None = None
    bm25: bool | None = None
    algorithm: Any = None


class PlainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Configuration of the other indexes: they have nothing to configure."""


class PlainIndex(msgspec.Struct, frozen=True):
    """An index that is on or off."""

    enabled: bool
    config: PlainConfig


class VectorIndex(msgspec.Struct, frozen=True):
    """The index of dense vectors."""

    enabled: bool
    config: VectorConfig


class SparseIndex(msgspec.Struct, frozen=True):
    """The index of sparse vectors."""

    enabled: bool
    config: SparseConfig


class StringType(msgspec.Struct, frozen=True, kw_only=True):
    """Indexes of string values."""

    fts_index: PlainIndex | None = None
    string_inverted_index: PlainIndex | None = None


class FloatListType(msgspec.Struct, frozen=True, kw_only=True):
    """Indexes of dense vectors."""

    vector_index: VectorIndex | None = None


class SparseVectorType(msgspec.Struct, frozen=True, kw_only=True):
    """Indexes of sparse vectors."""

    sparse_vector_index: SparseIndex | None = None


class IntType(msgspec.Struct, frozen=True, kw_only=True):
    """Indexes of integers."""

    int_inverted_index: PlainIndex | None = None


class FloatType(msgspec.Struct, frozen=True, kw_only=True):
    """Indexes of floats."""

    float_inverted_index: PlainIndex | None = None


class BoolType(msgspec.Struct, frozen=True, kw_only=True):
    """Indexes of booleans."""

    bool_inverted_index: PlainIndex | None = None


class ValueTypes(msgspec.Struct, frozen=True, kw_only=True):
    """The indexes of one key, by the type of its values."""

    string: StringType | None = None
    float_list: FloatListType | None = None
    sparse_vector: SparseVectorType | None = None
    int: IntType | None = None
    float: FloatType | None = None
    bool: BoolType | None = None


class CustomerKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The customer's own encryption key; only this provider is known."""

    gcp: str


class GivenSchema(msgspec.Struct, frozen=True, kw_only=True):
    """`schema` of a new collection."""

    defaults: ValueTypes
    keys: dict[str, ValueTypes]
    cmek: CustomerKey | None = None


def given_schema(tree: Any) -> GivenSchema | None:
    """The schema of a request, None for null. Raises WrongShape."""
    return None if tree is None else shaped(_modern(tree), GivenSchema)


def plain_json(node: msgspec.Struct) -> dict[str, Any]:
    """The struct as JSON objects, without members that are null. In an embedding function these are kept."""
    found: dict[str, Any] = {}
    for name in node.__struct_fields__:
        value = getattr(node, name)
        if value is None:
            continue
        is_function = name == "embedding_function"
        is_struct = isinstance(value, msgspec.Struct)
        found[name] = plain_json(value) if is_struct and not is_function else msgspec.to_builtins(value)
    return found


def _modern(tree: Any) -> Any:
    """The schema in today's spelling. A tree that has not even the outline of a schema is left to the shape check."""
    if not isinstance(tree, dict):
        return tree
    schema = _renamed(tree, {"key_overrides": "keys"})
    if "defaults" in schema:
        schema["defaults"] = _modern_types(schema["defaults"])
    if isinstance(schema.get("keys"), dict):
        schema["keys"] = {key: _modern_types(types) for key, types in schema["keys"].items()}
    return schema


def _modern_types(types: Any) -> Any:
    if not isinstance(types, dict):
        return types
    renamed = _renamed(types, _OLD_TYPES)
    return {
        name: _renamed(indexes, _OLD_INDEXES) if isinstance(indexes, dict) else indexes
        for name, indexes in renamed.items()
    }


def _renamed(members: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in members.items():
        modern = names.get(name, name)
        if modern in found:
            raise wrong_shape(f"duplicate field `{modern}`")
        found[modern] = value
    return found
