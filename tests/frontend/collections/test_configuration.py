from __future__ import annotations

from typing import Any

import msgspec
import pytest

from frontend.collections.configuration import (
    ConfigurationChange,
    GivenConfiguration,
    VectorSettings,
    changed_settings,
    default_numbers,
    effective_ef_search,
    fixed_settings,
    settings_from_request,
    shown_configuration,
)
from shared.errors import InvalidArgument
from shared.limits import GRAPH_EF_MAX, GRAPH_NEIGHBORS_MAX
from shared.vectors.space import Space


def settings(configuration: dict[str, Any] | None = None, metadata: dict[str, Any] | None = None) -> VectorSettings:
    given = None if configuration is None else msgspec.convert(configuration, GivenConfiguration)
    return settings_from_request(given, metadata)


def test_nothing_given_means_the_defaults() -> None:
    assert settings().is_default()
    assert settings({"hnsw": None, "spann": None, "embedding_function": None}) == settings()
    assert shown_configuration(settings()) == {
        "hnsw": {
            "space": "l2",
            "ef_construction": 100,
            "ef_search": 100,
            "max_neighbors": 16,
            "resize_factor": 1.2,
            "sync_threshold": 1000,
        },
        "spann": None,
        "embedding_function": None,
    }


def test_of_spann_only_the_space_survives() -> None:
    found = settings({"spann": {"space": "cosine", "ef_search": 7}})
    assert (found.space, found.numbers) == (Space.COSINE, default_numbers())


def test_both_indexes_at_once_are_refused() -> None:
    with pytest.raises(InvalidArgument, match=r"^Multiple vector index configurations provided$"):
        settings({"hnsw": {}, "spann": {}})


@pytest.mark.parametrize("configuration", [None, {}, {"hnsw": {"space": "l2"}}, {"hnsw": {"ef_search": 100}}])
def test_legacy_metadata_counts_while_the_index_is_the_default(configuration: dict[str, Any] | None) -> None:
    metadata = {"hnsw:space": "cosine", "hnsw:M": 8, "hnsw:search_ef": 9, "hnsw:resize_factor": 2, "other": "x"}
    found = settings(configuration, metadata)
    assert found.space is Space.COSINE
    assert (found.numbers["max_neighbors"], found.numbers["ef_search"]) == (8, 9)
    assert repr(found.numbers["resize_factor"]) == "2.0"


def test_a_configuration_that_says_something_hides_legacy_metadata() -> None:
    assert settings({"hnsw": {"ef_search": 10}}, {"hnsw:space": "cosine"}).space is Space.L2
    for spann in ({}, {"space": "l2"}):
        assert settings({"spann": spann}, {"hnsw:space": "cosine", "hnsw:bogus": 1}) == VectorSettings()


@pytest.mark.parametrize(
    "metadata",
    [
        {"hnsw:space": "foo"},
        {"hnsw:space": 1},
        {"hnsw:bogus": 1},
        {"hnsw:M": -1},
        {"hnsw:M": 1.5},
        {"hnsw:M": True},
        {"hnsw:M": "8"},
        {"hnsw:batch_size": 1},
        {"hnsw:sync_threshold": 0},
    ],
)
def test_bad_legacy_metadata_is_refused(metadata: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"^Failed to parse hnsw parameters from segment metadata$"):
        settings(None, metadata)
    with pytest.raises(InvalidArgument, match=r"^Failed to parse hnsw parameters from segment metadata$"):
        settings({"hnsw": {"ef_search": 10}}, metadata)


@pytest.mark.parametrize(
    "configuration",
    [
        {"hnsw": {"bogus": 1}},
        {"hnsw": {"ef_search": -1}},
        {"hnsw": {"ef_search": 1.5}},
        {"hnsw": {"ef_search": True}},
        {"hnsw": {"space": "L2"}},
        {"spann": {"bogus": 1}},
        {"embedding_function": {"type": "bogus"}},
        {"embedding_function": {"type": "known", "name": "x"}},
        {"embedding_function": {"name": "x", "config": {}}},
    ],
)
def test_wrong_shapes_are_refused(configuration: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        settings(configuration)


@pytest.mark.parametrize(
    "function",
    [{"type": "known", "name": "n", "config": {"a": [1, None]}}, {"type": "legacy"}, {"type": "unknown"}],
)
def test_an_embedding_function_is_echoed(function: dict[str, Any]) -> None:
    found = settings({"embedding_function": function})
    assert shown_configuration(found)["embedding_function"] == function


def test_an_update_merges_numbers_and_keeps_the_space() -> None:
    change = msgspec.convert(
        {"hnsw": {"ef_search": 5, "num_threads": None}, "embedding_function": {"type": "legacy"}}, ConfigurationChange
    )
    before = settings({"hnsw": {"space": "ip", "max_neighbors": 7}})
    after = changed_settings(before, change)
    assert after.space is Space.IP
    assert after.numbers == {**before.numbers, "ef_search": 5}
    assert after.embedding_function == {"type": "legacy"}
    assert changed_settings(after, ConfigurationChange()) == after


@pytest.mark.parametrize("change", [{"hnsw": {"space": "l2"}}, {"hnsw": {"ef_construction": 1}}, {"spann": {"x": 1}}])
def test_what_never_changes_cannot_be_named_in_an_update(change: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(change, ConfigurationChange)


def test_graphs_stay_within_what_a_machine_can_bear() -> None:
    wild = settings({"hnsw": {"max_neighbors": 2**62, "ef_construction": 2**62, "ef_search": 2**62}})
    fixed = fixed_settings(wild, 3)
    assert fixed == {
        "space": "l2",
        "max_neighbors": GRAPH_NEIGHBORS_MAX,
        "ef_construction": GRAPH_EF_MAX,
        "shards": 3,
    }
    assert effective_ef_search(shown_configuration(wild)) == GRAPH_EF_MAX
    tame = settings({"hnsw": {"max_neighbors": 0, "ef_construction": 0, "ef_search": 0}})
    assert fixed_settings(tame, 1)["max_neighbors"] == 2
    assert effective_ef_search(shown_configuration(tame)) == 1
