from __future__ import annotations

import copy
from typing import Any

import pytest

from frontend.collections.configuration import VectorSettings, default_numbers
from frontend.collections.schema import (
    check_where,
    completed,
    default_schema,
    indexing_of,
    reconciled,
    settings_of,
    shown_schema,
    sparse_config,
    with_settings,
)
from frontend.collections.schema_rules import schema_problem
from frontend.collections.schema_shape import given_schema
from shared.errors import InvalidArgument, WrongShape
from shared.records.indexing import Indexing
from shared.records.where import (
    All,
    AnyOf,
    ArrayContains,
    Compare,
    DocumentContains,
    DocumentRegex,
    IdIn,
    MetadataCompare,
    MetadataIn,
    Where,
)
from shared.vectors.space import Space

NOTHING: dict[str, Any] = {"defaults": {}, "keys": {}}


def filled(tree: Any) -> dict[str, Any]:
    """The schema of a request, completed."""
    given = given_schema(tree)
    assert given is not None
    return completed(given)


def vector(config: dict[str, Any], *, enabled: bool = True) -> dict[str, Any]:
    return {"float_list": {"vector_index": {"enabled": enabled, "config": config}}}


def plain(kind: str, index: str, *, enabled: bool) -> dict[str, Any]:
    return {kind: {index: {"enabled": enabled, "config": {}}}}


def sparse(config: dict[str, Any], *, enabled: bool = True) -> dict[str, Any]:
    return {"sparse_vector": {"sparse_vector_index": {"enabled": enabled, "config": config}}}


def keyed(**keys: dict[str, Any]) -> dict[str, Any]:
    return {"defaults": {}, "keys": {key.replace("__", "#"): types for key, types in keys.items()}}


def problem(tree: dict[str, Any]) -> str | None:
    given = given_schema(tree)
    assert given is not None
    return schema_problem(given)


@pytest.mark.parametrize(
    "tree",
    [
        {},
        {"defaults": {}},
        {"keys": {}},
        "x",
        [],
        {"defaults": None, "keys": {}},
        keyed(__embedding=vector({"bogus": 1})),
        keyed(__embedding=vector({"hnsw": {"space": "l2"}})),
        keyed(x=sparse({"bogus": 1})),
        keyed(x={"string": {"string_inverted_index": {"enabled": True}}}),
        keyed(x={"string": {"string_inverted_index": {"config": {}}}}),
        {**NOTHING, "cmek": {"aws": "x"}},
        {**NOTHING, "key_overrides": {}},
        {"defaults": {"int": {"int_inverted_index": {"enabled": True, "config": {"x": 1}}}}, "keys": {}},
        keyed(k={"string": {"fts_index": {"enabled": False, "config": {"x": 1}}}}),
    ],
)
def test_a_schema_of_the_wrong_shape_is_refused(tree: Any) -> None:
    with pytest.raises(WrongShape):
        given_schema(tree)


@pytest.mark.parametrize(
    ("tree", "text"),
    [
        ({"defaults": vector({}), "keys": {}}, "Vector index cannot be enabled by default."),
        (keyed(x=vector({})), "Vector index can only be enabled on #embedding field: x"),
        (keyed(__embedding=vector({"source_key": "foo"})), "Vector index can only source from #document"),
        ({"defaults": sparse({}), "keys": {}}, "Sparse vector index cannot be enabled by default."),
        (
            {"defaults": plain("string", "fts_index", enabled=True), "keys": {}},
            "Full text search / regular expression index cannot be enabled by default.",
        ),
        (
            keyed(x=plain("string", "fts_index", enabled=True)),
            "Full text search / regular expression index can only be enabled on #document field: x",
        ),
        (keyed(__foo={}), "key cannot begin with '#'. Keys starting with '#' are reserved for system use: #foo"),
        (
            keyed(__document=plain("int", "int_inverted_index", enabled=False)),
            "Document field cannot have any value types other than string: #document",
        ),
        (
            keyed(__document=plain("string", "string_inverted_index", enabled=True)),
            "String inverted index can not be enabled on #document key: #document",
        ),
        (
            keyed(__embedding={"string": {}}),
            "Embedding field cannot have any value types other than float_list: #embedding",
        ),
        (
            keyed(s=sparse({"source_key": "#foo", "embedding_function": {"type": "unknown"}})),
            "source_key cannot begin with '#'. The only valid key starting with '#' is Key.DOCUMENT or '#document'.",
        ),
        (
            keyed(s=sparse({"source_key": "#foo"}, enabled=False)),
            "source_key cannot begin with '#'. The only valid key starting with '#' is Key.DOCUMENT or '#document'.",
        ),
        (
            keyed(s=sparse({"source_key": "text"})),
            "If source_key is provided then embedding_function must also be provided",
        ),
        (
            keyed(__embedding=vector({"hnsw": {}, "spann": {}})),
            "Both spann and hnsw config cannot be present at the same time.",
        ),
        ({**NOTHING, "cmek": {"gcp": 'b"ad'}}, 'CMEK does not match expected pattern: Gcp("b\\"ad")'),
    ],
)
def test_rules_of_what_may_be_indexed(tree: dict[str, Any], text: str) -> None:
    found = problem(tree)
    assert found is not None
    assert found.startswith(text)


def test_the_older_spelling_means_the_same() -> None:
    old = {
        "defaults": {"#string": {"$string_inverted_index": {"enabled": False, "config": {}}}},
        "key_overrides": {
            "#embedding": {"#float_list": {"$vector_index": {"enabled": True, "config": {"space": "ip"}}}}
        },
    }
    new = {
        "defaults": plain("string", "string_inverted_index", enabled=False),
        "keys": {"#embedding": vector({"space": "ip"})},
    }
    assert given_schema(old) == given_schema(new)


def test_a_given_schema_is_completed_from_the_default_but_own_keys_stay_as_given() -> None:
    off = plain("string", "string_inverted_index", enabled=False)
    found = filled(keyed(cat=off, __document=plain("string", "fts_index", enabled=False)))
    expected = default_schema()
    expected["keys"]["cat"] = off
    expected["keys"]["#document"]["string"]["fts_index"]["enabled"] = False
    assert found == expected


@pytest.mark.parametrize("name", ["batch_size", "sync_threshold"])
def test_a_schema_checks_the_numbers_that_a_configuration_does_not(name: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^Failed to reconcile schema: Invalid HNSW configuration: "):
        reconciled(given_schema(keyed(__embedding=vector({"hnsw": {name: 1}}))), VectorSettings())
    with pytest.raises(InvalidArgument, match=r"Cannot set both collection config and schema simultaneously$"):
        reconciled(given_schema(keyed(__embedding=vector({"hnsw": {name: 1}}))), VectorSettings(Space.IP))
    reconciled(given_schema(keyed(k=vector({"hnsw": {name: 1}}, enabled=False))), VectorSettings())


def test_whoever_builds_segments_learns_what_the_schema_switches() -> None:
    off: dict[str, Any] = {"enabled": False, "config": {}}
    on: dict[str, Any] = {"enabled": True, "config": {}}
    schema, _ = reconciled(
        given_schema(
            {
                "defaults": {"int": {"int_inverted_index": off}},
                "keys": {
                    "#document": {"string": {"fts_index": off}},
                    "s": sparse({"bm25": True}),
                    "t": sparse({}, enabled=False),
                    "k": {"int": {"int_inverted_index": on}, "string": {"string_inverted_index": off}},
                },
            }
        ),
        VectorSettings(),
    )
    indexing = indexing_of(schema)
    assert indexing == Indexing.of(indexing.fixed_member())
    assert (indexing.sparse, indexing.documents) == (["s"], False)
    found = [indexing.has(key, kind) for key in ("k", "other") for kind in ("int", "string", "bool")]
    assert found == [True, False, True, False, True, True]
    assert sparse_config(schema, "s") == {"bm25": True}


def test_a_schema_that_switches_nothing_is_not_kept_twice() -> None:
    assert indexing_of(default_schema()).fixed_member() == {}


def test_a_default_schema_gives_way_to_the_configuration() -> None:
    settings = VectorSettings(Space.IP, default_numbers() | {"ef_search": 3}, {"type": "legacy"})
    schema, found = reconciled(given_schema(NOTHING), settings)
    assert found == settings
    assert schema == default_schema(settings)
    assert settings_of(schema) == settings
    assert reconciled(given_schema(keyed(__embedding=vector({"source_key": "#document"}))), settings)[1] == settings


@pytest.mark.parametrize("function", [{"type": "unknown"}, {"type": "known", "name": "default", "config": {}}])
def test_a_function_that_says_nothing_in_a_default_schema_is_dropped(function: dict[str, Any]) -> None:
    schema, settings = reconciled(
        given_schema(keyed(__embedding=vector({"embedding_function": function}))), VectorSettings()
    )
    assert settings.embedding_function is None
    assert schema == default_schema()


@pytest.mark.parametrize("settings", [VectorSettings(Space.IP), VectorSettings(embedding_function={"type": "legacy"})])
@pytest.mark.parametrize("config", [{"space": "cosine"}, {"space": "l2"}, {}])
def test_schema_and_configuration_cannot_both_say_something(settings: VectorSettings, config: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match=r"Cannot set both collection config and schema simultaneously$"):
        reconciled(given_schema(keyed(__embedding=vector(config))), settings)


def test_a_schema_that_says_something_makes_the_configuration() -> None:
    config = {"space": "cosine", "hnsw": {"ef_search": 7}, "embedding_function": {"type": "legacy"}}
    schema, settings = reconciled(given_schema(keyed(__embedding=vector(config))), VectorSettings())
    assert settings == VectorSettings(Space.COSINE, default_numbers() | {"ef_search": 7}, {"type": "legacy"})
    assert schema["defaults"] == default_schema()["defaults"]


def test_the_default_space_does_not_reach_the_embedding_and_survives_an_update() -> None:
    given = given_schema({"defaults": vector({"space": "cosine"}, enabled=False), "keys": {}})
    schema, settings = reconciled(given, VectorSettings())
    assert settings.space is Space.L2
    before = copy.deepcopy(schema)
    changed = with_settings(schema, VectorSettings(numbers=default_numbers() | {"ef_search": 5}))
    assert schema == before
    default = changed["defaults"]["float_list"]["vector_index"]["config"]
    assert (default["space"], default["hnsw"]["ef_search"]) == ("cosine", 5)
    assert settings_of(changed).numbers["ef_search"] == 5


def test_keys_grow_with_a_copy_of_the_default_and_hidden_ones_do_not_show() -> None:
    base = filled(keyed(cat=plain("string", "string_inverted_index", enabled=False)))
    before = copy.deepcopy(base)
    shown = shown_schema(base, {("cat", "int"), ("cat", "string"), ("n", "float"), ("chroma:x", "int")})
    assert base == before
    assert shown["keys"]["cat"] == {**base["keys"]["cat"], "int": base["defaults"]["int"]}
    assert shown["keys"]["n"] == {"float": base["defaults"]["float"]}
    assert "chroma:x" not in shown["keys"]


STRINGS_OFF = filled(keyed(cat=plain("string", "string_inverted_index", enabled=False)))
TEXT_OFF = filled(keyed(__document=plain("string", "fts_index", enabled=False)))


@pytest.mark.parametrize(
    "where",
    [
        MetadataCompare("cat", Compare.EQ, "x"),
        MetadataIn("cat", ["x"], negated=True),
        ArrayContains("cat", "x"),
        All([MetadataCompare("other", Compare.EQ, "y"), AnyOf([MetadataCompare("cat", Compare.NE, "x")])]),
    ],
)
def test_a_filter_needs_the_index_of_its_values_type(where: Where) -> None:
    with pytest.raises(InvalidArgument, match=r"^Cannot filter using metadata key 'cat' with type 'Str'"):
        check_where(STRINGS_OFF, where)


@pytest.mark.parametrize(
    "where",
    [
        MetadataCompare("cat", Compare.EQ, 1),
        MetadataCompare("cat", Compare.EQ, True),
        MetadataIn("cat", [1.5]),
        MetadataCompare("other", Compare.EQ, "y"),
        MetadataCompare("#embedding", Compare.EQ, "y"),
        DocumentContains("x"),
        IdIn(["a"]),
        All([]),
    ],
)
def test_other_types_and_keys_can_be_filtered(where: Where) -> None:
    check_where(STRINGS_OFF, where)


@pytest.mark.parametrize("where", [DocumentContains("h"), DocumentRegex("h"), AnyOf([DocumentContains("h")])])
def test_document_filters_need_full_text_search(where: Where) -> None:
    with pytest.raises(InvalidArgument, match=r"^Cannot filter using full-text search because FTS"):
        check_where(TEXT_OFF, where)


def test_a_document_cannot_be_compared_like_metadata() -> None:
    with pytest.raises(InvalidArgument, match="metadata key '#document' with type 'Str'"):
        check_where(default_schema(), MetadataCompare("#document", Compare.EQ, "x"))
