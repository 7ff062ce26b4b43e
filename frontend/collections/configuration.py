"""The configuration of a collection: how its vectors are compared and indexed.

One value, `VectorSettings`, is behind two things that an answer shows: `configuration_json`, and the vector index in
the schema. It comes from the request's `configuration`, from the older `hnsw:...` keys in the metadata, or from a
schema.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final

import msgspec

from shared.errors import InvalidArgument
from shared.limits import GRAPH_EF_MAX, GRAPH_NEIGHBORS_MAX, GRAPH_NEIGHBORS_MIN, U32_MAX
from shared.vectors.space import Space

Count = Annotated[int, msgspec.Meta(ge=0)]
SmallCount = Annotated[int, msgspec.Meta(ge=0, le=U32_MAX)]
Number = int | float

LEGACY_PREFIX: Final = "hnsw:"
"""Metadata keys with this prefix configured the index before there was a `configuration`."""

LEGACY_NAMES: Final = {
    "hnsw:construction_ef": "ef_construction",
    "hnsw:search_ef": "ef_search",
    "hnsw:M": "max_neighbors",
    "hnsw:num_threads": "num_threads",
    "hnsw:resize_factor": "resize_factor",
    "hnsw:batch_size": "batch_size",
    "hnsw:sync_threshold": "sync_threshold",
}
AT_LEAST_TWO: Final = ("batch_size", "sync_threshold")
"""Parameters that are refused below 2."""

SHOWN_NUMBERS: Final = ("ef_construction", "ef_search", "max_neighbors", "resize_factor", "sync_threshold")


def default_numbers() -> dict[str, Number]:
    """The HNSW parameters of a collection that configures none."""
    return {
        "ef_construction": 100,
        "max_neighbors": 16,
        "ef_search": 100,
        "num_threads": os.cpu_count() or 1,
        "batch_size": 100,
        "sync_threshold": 1000,
        "resize_factor": 1.2,
    }


# ---- shapes of what clients send (msgspec checks them; unknown members inside are refused)


class KnownFunction(msgspec.Struct, frozen=True, tag_field="type", tag="known"):
    """An embedding function the clients know by name. Carried, never called."""

    name: str
    config: Any


class LegacyFunction(msgspec.Struct, frozen=True, tag_field="type", tag="legacy"):
    """An embedding function of the time before functions had names: nothing else is known of it."""


class UnknownFunction(msgspec.Struct, frozen=True, tag_field="type", tag="unknown"):
    """No embedding function, or one without a name, such as a function of the client's own."""


EmbeddingFunction = KnownFunction | LegacyFunction | UnknownFunction


class GivenNumbers(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """HNSW parameters in a schema; null means the default."""

    ef_construction: Count | None = None
    max_neighbors: Count | None = None
    ef_search: Count | None = None
    num_threads: Count | None = None
    batch_size: Count | None = None
    sync_threshold: Count | None = None
    resize_factor: float | None = None


class GivenHnsw(GivenNumbers, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`configuration.hnsw` of a new collection."""

    space: Space | None = None


class GivenSpann(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`configuration.spann`: understood, but only its space has a meaning here."""

    space: Space | None = None
    search_nprobe: SmallCount | None = None
    write_nprobe: SmallCount | None = None
    ef_construction: Count | None = None
    ef_search: Count | None = None
    max_neighbors: Count | None = None
    reassign_neighbor_count: SmallCount | None = None
    split_threshold: SmallCount | None = None
    merge_threshold: SmallCount | None = None


class GivenConfiguration(msgspec.Struct, frozen=True, kw_only=True):
    """`configuration` of a new collection."""

    hnsw: GivenHnsw | None = None
    spann: GivenSpann | None = None
    embedding_function: EmbeddingFunction | None = None


class HnswChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`new_configuration.hnsw`: what may change later."""

    max_neighbors: Count | None = None
    ef_search: Count | None = None
    num_threads: Count | None = None
    batch_size: Count | None = None
    sync_threshold: Count | None = None
    resize_factor: float | None = None


class SpannChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`new_configuration.spann`: understood and without effect."""

    search_nprobe: SmallCount | None = None
    ef_search: Count | None = None


class ConfigurationChange(msgspec.Struct, frozen=True, kw_only=True):
    """`new_configuration`; what is null stays."""

    hnsw: HnswChange | None = None
    spann: SpannChange | None = None
    embedding_function: EmbeddingFunction | None = None


# ---- the settings themselves


@dataclass(frozen=True)
class VectorSettings:
    """The settings by which a collection's embeddings are compared and indexed. `numbers` has every member of
    `default_numbers`; `embedding_function` is JSON as the client sent it, or None.
    """

    space: Space = Space.L2
    numbers: Mapping[str, Number] = field(default_factory=default_numbers)
    embedding_function: dict[str, Any] | None = None

    def is_default(self) -> bool:
        return self.has_default_index() and is_default_function(self.embedding_function)

    def has_default_index(self) -> bool:
        return self.space is Space.L2 and self.numbers == default_numbers()


def is_default_function(function: Mapping[str, Any] | None) -> bool:
    """Whether storing this embedding function says no more than storing none."""
    if function is None or function["type"] == "unknown":
        return True
    return (function["type"], function.get("name")) == ("known", "default")


def given_members(given: msgspec.Struct) -> dict[str, Any]:
    """The members that are not null, as JSON values."""
    return {name: value for name, value in msgspec.to_builtins(given).items() if value is not None}


def function_json(function: EmbeddingFunction | None) -> dict[str, Any] | None:
    """The embedding function as the JSON object that the client sent."""
    return None if function is None else msgspec.to_builtins(function)


def settings_from_request(given: GivenConfiguration | None, metadata: Mapping[str, Any] | None) -> VectorSettings:
    """The settings of a new collection without a schema. Metadata keys `hnsw:...` count only while the given index
    settings are the defaults; they have to be valid all the same, except beside `spann`, where they are not read.
    Raises InvalidArgument.
    """
    given = given or GivenConfiguration()
    _refuse_two_indexes(given)
    function = function_json(given.embedding_function)
    settings = VectorSettings(embedding_function=function)
    if given.spann is not None:
        return replace(settings, space=given.spann.space or Space.L2)
    legacy = _with_legacy(settings, metadata or {})
    if given.hnsw is not None:
        numbers = given_members(given.hnsw)
        space = Space(numbers.pop("space", Space.L2))
        settings = replace(settings, space=space, numbers=default_numbers() | numbers)
    return legacy if settings.has_default_index() else settings


def _refuse_two_indexes(given: GivenConfiguration | ConfigurationChange) -> None:
    if given.hnsw is not None and given.spann is not None:
        raise InvalidArgument("Multiple vector index configurations provided")


def _with_legacy(settings: VectorSettings, metadata: Mapping[str, Any]) -> VectorSettings:
    legacy = {key: value for key, value in metadata.items() if key.startswith(LEGACY_PREFIX)}
    space = legacy.pop("hnsw:space", Space.L2)
    try:
        numbers = given_members(
            msgspec.convert({LEGACY_NAMES[key]: value for key, value in legacy.items()}, GivenNumbers)
        )
        settings = replace(settings, space=Space(space), numbers=default_numbers() | numbers)
    except (KeyError, ValueError):
        raise _bad_legacy() from None
    if too_small(settings.numbers):
        raise _bad_legacy()
    return settings


def _bad_legacy() -> InvalidArgument:
    return InvalidArgument("Failed to parse hnsw parameters from segment metadata")


def too_small(numbers: Mapping[str, Number]) -> str | None:
    """The name of the first parameter that is below its least value; None when none is."""
    return next((name for name in AT_LEAST_TWO if numbers[name] < 2), None)


def changed_settings(settings: VectorSettings, change: ConfigurationChange) -> VectorSettings:
    """The settings after an update. Raises InvalidArgument."""
    check_change(change)
    if change.hnsw is not None:
        settings = replace(settings, numbers=dict(settings.numbers) | given_members(change.hnsw))
    if change.embedding_function is not None:
        settings = replace(settings, embedding_function=function_json(change.embedding_function))
    return settings


def check_change(change: ConfigurationChange) -> None:
    """Raises InvalidArgument for a change that no collection takes."""
    _refuse_two_indexes(change)


def shown_configuration(settings: VectorSettings) -> dict[str, Any]:
    """`configuration_json` as answers show it and as the catalog keeps it."""
    hnsw = {"space": settings.space.value} | {name: settings.numbers[name] for name in SHOWN_NUMBERS}
    return {"hnsw": hnsw, "spann": None, "embedding_function": settings.embedding_function}


def fixed_settings(settings: VectorSettings, shards: int) -> dict[str, Any]:
    """The settings that never change, from which compactors build graphs. A client may send any number (docs/wire.md,
    section 9), but hnswlib does not take every number: within these limits it neither fails nor takes the memory of a
    machine that other collections use as well.
    """
    neighbors = min(max(int(settings.numbers["max_neighbors"]), GRAPH_NEIGHBORS_MIN), GRAPH_NEIGHBORS_MAX)
    ef_construction = min(max(int(settings.numbers["ef_construction"]), neighbors), GRAPH_EF_MAX)
    return {
        "space": settings.space.value,
        "ef_construction": ef_construction,
        "max_neighbors": neighbors,
        "shards": shards,
    }


def effective_ef_search(configuration: Mapping[str, Any]) -> int:
    """The beam width for queries, from a collection's stored configuration."""
    return min(max(int(configuration["hnsw"]["ef_search"]), 1), GRAPH_EF_MAX)
