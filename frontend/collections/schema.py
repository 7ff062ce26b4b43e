"""The schema of a collection: the default one, one given by a client, how it grows, what may be filtered.

The catalog keeps the *base* schema, complete and as JSON. Keys that records bring along are a set beside it
(`Collection.keys`) and are merged in when the schema is shown.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from frontend.collections.configuration import VectorSettings, default_numbers, is_default_function, too_small
from frontend.collections.schema_shape import DOCUMENT_KEY, EMBEDDING_KEY, GivenSchema, plain_json
from shared.errors import InvalidArgument
from shared.records.indexing import Indexing
from shared.records.model import HIDDEN_METADATA_PREFIX
from shared.records.where import (
    All,
    AnyOf,
    ArrayContains,
    DocumentContains,
    DocumentRegex,
    IdIn,
    MetadataCompare,
    MetadataIn,
    Scalar,
    Where,
)
from shared.vectors.space import Space

if TYPE_CHECKING:
    from shared.catalog import Collection

Schema = dict[str, Any]
"""A complete schema as JSON: `defaults` by value type, and `keys`, each with its value types."""

SCALAR_INDEXES: Final = {
    "string": "string_inverted_index",
    "int": "int_inverted_index",
    "float": "float_inverted_index",
    "bool": "bool_inverted_index",
    "sparse_vector": "sparse_vector_index",
}
"""The index that a filter on a value of each type needs; the keys are the value types of `Collection.keys`."""

_SHOWN_TYPES: Final = {"string": "Str", "int": "Int", "float": "Float", "bool": "Bool", "sparse_vector": "SparseVector"}


# ---- building


def default_schema(settings: VectorSettings | None = None) -> Schema:
    """The schema of a collection that was given none, with these vector settings."""
    settings = settings or VectorSettings()
    return {
        "defaults": {
            "string": {"fts_index": _index(False), "string_inverted_index": _index(True)},
            "float_list": {"vector_index": _index(False, _vector_config(settings))},
            "sparse_vector": {
                "sparse_vector_index": _index(False, {"embedding_function": {"type": "unknown"}, "bm25": False})
            },
            "int": {"int_inverted_index": _index(True)},
            "float": {"float_inverted_index": _index(True)},
            "bool": {"bool_inverted_index": _index(True)},
        },
        "keys": {
            DOCUMENT_KEY: {"string": {"fts_index": _index(True), "string_inverted_index": _index(False)}},
            EMBEDDING_KEY: {
                "float_list": {"vector_index": _index(True, _vector_config(settings) | {"source_key": DOCUMENT_KEY})}
            },
        },
    }


def _index(enabled: bool, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"enabled": enabled, "config": dict(config or {})}


def _vector_config(settings: VectorSettings) -> dict[str, Any]:
    config: dict[str, Any] = {"space": settings.space.value}
    if settings.embedding_function is not None:
        config["embedding_function"] = settings.embedding_function
    return config | {"hnsw": dict(settings.numbers)}


def completed(given: GivenSchema) -> Schema:
    """The given schema merged into the default one, which it overrides. Only keys of the default schema are completed;
    other keys stay as they were given.
    """
    schema = default_schema()
    _overlay(schema["defaults"], plain_json(given.defaults))
    for key, types in given.keys.items():
        _overlay(schema["keys"].setdefault(key, {}), plain_json(types))
    if given.cmek is not None:
        schema["cmek"] = plain_json(given.cmek)
    return schema


def _check_indexes(schema: Schema) -> None:
    """Raises InvalidArgument for indexes that cannot be built."""
    for types in (schema["defaults"], schema["keys"][EMBEDDING_KEY]):
        _check_vector_numbers(types)


def _overlay(base: dict[str, Any], given: Mapping[str, Any]) -> None:
    for name, value in given.items():
        if name == "spann":  # the index here is HNSW: other parameters are understood and dropped
            continue
        mergeable = isinstance(value, dict) and name != "embedding_function"
        if mergeable:
            _overlay(base.setdefault(name, {}), value)
        else:
            base[name] = value


def _check_vector_numbers(types: Mapping[str, Any]) -> None:
    config = types.get("float_list", {}).get("vector_index", {}).get("config", {})
    name = too_small(default_numbers() | config.get("hnsw", {}))
    if name:
        raise InvalidArgument(f"Failed to reconcile schema: Invalid HNSW configuration: {name} must be at least 2")


def reconciled(given: GivenSchema | None, settings: VectorSettings) -> tuple[Schema, VectorSettings]:
    """The schema of a new collection and the settings that it ends up with, from the two that the request may hold.

    A schema that says nothing beyond the default gives way to the configuration; two that both say something are
    refused. Raises InvalidArgument.
    """
    if given is None:
        return default_schema(settings), settings
    schema = completed(given)
    plain = _is_default(schema)
    if not settings.is_default() and not (plain and _leaves_embedding_alone(given)):
        raise InvalidArgument("Failed to reconcile schema: Cannot set both collection config and schema simultaneously")
    if plain:
        return default_schema(settings), settings
    _check_indexes(schema)
    return schema, settings_of(schema)


def _leaves_embedding_alone(given: GivenSchema) -> bool:
    """False for a vector index of `#embedding` that names no source: the default one names `#document`, so that index
    is a choice even where all else in it is as the default.
    """
    types = given.keys.get(EMBEDDING_KEY)
    index = types and types.float_list and types.float_list.vector_index
    return not index or index.config.source_key is not None


def _is_default(schema: Schema) -> bool:
    """Whether the schema equals the default one, apart from embedding functions that say nothing."""
    plain = copy.deepcopy(schema)
    for types in (plain["defaults"], plain["keys"][EMBEDDING_KEY]):
        config = types["float_list"]["vector_index"]["config"]
        if is_default_function(config.get("embedding_function")):
            config.pop("embedding_function", None)
    return plain == default_schema()


def settings_of(schema: Schema) -> VectorSettings:
    """The settings of the collection's schema by which its embeddings are compared and indexed."""
    config = schema["keys"][EMBEDDING_KEY]["float_list"]["vector_index"]["config"]
    return VectorSettings(Space(config["space"]), dict(config["hnsw"]), config.get("embedding_function"))


def with_settings(schema: Schema, settings: VectorSettings) -> Schema:
    """The schema after a change of configuration: it reaches the default of all keys as well, but for the space, which
    never changes.
    """
    changed = copy.deepcopy(schema)
    for types in (changed["defaults"], changed["keys"][EMBEDDING_KEY]):
        config = types["float_list"]["vector_index"]["config"]
        config |= _vector_config(replace(settings, space=Space(config["space"])))
    return changed


def indexing_of(schema: Schema) -> Indexing:
    """The indexing by compactors and query workers, of everything but embeddings, by this schema."""
    inverted = {value_type: index for value_type, index in SCALAR_INDEXES.items() if value_type != "sparse_vector"}
    keys: dict[str, dict[str, bool]] = {}
    sparse: list[str] = []
    for key, types in schema["keys"].items():
        if key in (DOCUMENT_KEY, EMBEDDING_KEY):
            continue
        given = {
            value_type: bool(types[value_type][index]["enabled"])
            for value_type, index in inverted.items()
            if index in types.get(value_type, {})
        }
        keys |= {key: given} if given else {}
        sparse += [key] if _is_enabled(schema, key, "sparse_vector", "sparse_vector_index") else []
    off = [value_type for value_type, index in inverted.items() if not schema["defaults"][value_type][index]["enabled"]]
    return Indexing(off, keys, sparse, _is_enabled(schema, DOCUMENT_KEY, "string", "fts_index"))


# ---- growing


def shown_schema(base: Schema, keys: Iterable[tuple[str, str]]) -> Schema:
    """The base schema with the (metadata key, value type) pairs that records have brought along, each with a
    copy of the default for its type. Hidden keys are not shown.
    """
    grown = {key: dict(types) for key, types in base["keys"].items()}
    for key, value_type in keys:
        if not key.startswith(HIDDEN_METADATA_PREFIX):
            grown.setdefault(key, {}).setdefault(value_type, base["defaults"][value_type])
    return base | {"keys": grown}


# ---- filtering


def check_filterable(collection: Collection, where: Where | None) -> None:
    """Raises InvalidArgument when the filter needs an index that the collection's schema has switched off."""
    if where is not None:
        check_where(collection.schema, where)


def check_where(schema: Schema, where: Where) -> None:
    """Raises InvalidArgument when the filter needs an index that the schema has switched off."""
    match where:
        case All(clauses=clauses) | AnyOf(clauses=clauses):
            for clause in clauses:
                check_where(schema, clause)
        case MetadataCompare(key=key, value=value) | ArrayContains(key=key, value=value):
            check_key(schema, key, value_type(value))
        case MetadataIn(key=key, values=values):
            check_key(schema, key, value_type(values[0]))
        case DocumentContains() | DocumentRegex():
            if not _is_enabled(schema, DOCUMENT_KEY, "string", "fts_index"):
                raise InvalidArgument("Cannot filter using full-text search because FTS indexing is disabled")
        case IdIn():
            pass


def value_type(value: Scalar) -> str:
    """The schema's name for the type of a metadata value (of an array's elements)."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int"
    return "float" if isinstance(value, float) else "string"


def check_field(schema: Schema, key: str) -> None:
    """Raises InvalidArgument when values of some type at `key` have no index: counting and sorting them needs all."""
    for kind in ("string", "int", "float", "bool"):
        check_key(schema, key, kind)


def check_key(schema: Schema, key: str, kind: str) -> None:
    """Raises InvalidArgument when `key` has no index for values of type `kind`."""
    if not _is_enabled(schema, key, kind, SCALAR_INDEXES[kind]):
        raise InvalidArgument(
            f"Cannot filter using metadata key '{key}' with type '{_SHOWN_TYPES[kind]}' because indexing is disabled"
        )


def _is_enabled(schema: Schema, key: str, kind: str, index: str) -> bool:
    own = schema["keys"].get(key, {}).get(kind, {}).get(index)
    return bool((own or schema["defaults"][kind][index])["enabled"])


def sparse_config(schema: Schema, key: str) -> dict[str, Any]:
    """The configuration of the sparse index at `key`."""
    own = schema["keys"].get(key, {}).get("sparse_vector", {}).get("sparse_vector_index")
    config: dict[str, Any] = (own or schema["defaults"]["sparse_vector"]["sparse_vector_index"])["config"]
    return config
