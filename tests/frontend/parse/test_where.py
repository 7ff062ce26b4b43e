from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.parse.where import NESTING_MAX, parse_filters, parse_where, parse_where_document
from shared.errors import InvalidArgument
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

GOOD = [
    ({"k": "v"}, MetadataCompare("k", Compare.EQ, "v")),
    ({"k": True}, MetadataCompare("k", Compare.EQ, True)),
    ({"k": {"$eq": 1.0}}, MetadataCompare("k", Compare.EQ, 1.0)),
    ({"k": {"$ne": False}}, MetadataCompare("k", Compare.NE, False)),
    ({"k": {"$gte": -(2**63)}}, MetadataCompare("k", Compare.GTE, -(2**63))),
    ({"k": {"$lt": 2**63 - 1}}, MetadataCompare("k", Compare.LT, 2**63 - 1)),
    ({"k": {"$in": ["a", "b"]}}, MetadataIn("k", ["a", "b"])),
    ({"k": {"$nin": [True, False]}}, MetadataIn("k", [True, False], negated=True)),
    ({"k": {"$contains": 1}}, ArrayContains("k", 1)),
    ({"k": {"$not_contains": "x"}}, ArrayContains("k", "x", negated=True)),
    ({"$and": []}, All([])),
    ({"$or": [{"k": 1}]}, AnyOf([MetadataCompare("k", Compare.EQ, 1)])),
    ({"#document": {"$contains": "x"}}, DocumentContains("x")),
    ({"#document": {"$not_regex": "^x"}}, DocumentRegex("^x", negated=True)),
    ({"#document": "x"}, MetadataCompare("#document", Compare.EQ, "x")),
    ({"#document": {"$eq": "x"}}, MetadataCompare("#document", Compare.EQ, "x")),
    ({"#id": "a"}, IdIn(["a"])),
    ({"#id": {"$nin": ["a", "b"]}}, IdIn(["a", "b"], negated=True)),
    ({"#embedding": 1}, MetadataCompare("#embedding", Compare.EQ, 1)),
]

BAD: list[Any] = [
    {},
    [],
    "x",
    5,
    {"a": 1, "b": 2},
    {"k": {}},
    {"k": None},
    {"k": [1]},
    {"k": {"$gt": "1"}},
    {"k": {"$lte": True}},
    {"k": {"$gt": 1, "$lt": 2}},
    {"k": {"$foo": 1}},
    {"k": {"$regex": "a"}},
    {"k": {"$not": 1}},
    {"k": {"$in": []}},
    {"k": {"$in": 1}},
    {"k": {"$in": [None]}},
    {"k": {"$in": [1, 2.5]}},
    {"k": {"$in": [True, 1]}},
    {"k": {"$in": ["1", 1]}},
    {"k": {"$in": [2**63]}},
    {"k": {"$in": [[1]]}},
    {"k": {"$eq": [1]}},
    {"k": {"$eq": 2**63}},
    {"k": {"$contains": None}},
    {"k": {"$contains": [1]}},
    {"$and": {"k": 1}},
    {"$and": [{"k": 1}, 5]},
    {"$contains": "x"},
    {"$gt": 1},
    {"$not": {"k": 1}},
    {"#document": {"$contains": 5}},
    {"#document": {"$regex": 5}},
    {"#id": 5},
    {"#id": {"$in": []}},
    {"#id": {"$gt": "a"}},
]

BAD_DOCUMENT: list[Any] = [
    {},
    "x",
    [],
    {"$contains": ["a"]},
    {"$contains": None},
    {"$eq": "x"},
    {"$and": {"$contains": "a"}},
    {"a": {"$contains": "b"}},
    {"$contains": "a", "$not_contains": "b"},
    {"$or": [{"$contains": "a"}, {}]},
]


@pytest.mark.parametrize(("clause", "node"), GOOD)
def test_every_form_of_where_is_understood(clause: Any, node: Where) -> None:
    assert parse_where(clause) == node


@pytest.mark.parametrize("clause", BAD)
def test_anything_else_is_an_invalid_where_clause(clause: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^Invalid where clause$"):
        parse_where(clause)


@pytest.mark.parametrize("clause", BAD_DOCUMENT)
def test_anything_else_is_an_invalid_where_document_clause(clause: Any) -> None:
    with pytest.raises(InvalidArgument, match=r"^Invalid where document clause$"):
        parse_where_document(clause)


def test_integers_after_a_float_become_floats() -> None:
    node = parse_where({"k": {"$in": [2.0, 1]}})
    assert isinstance(node, MetadataIn)
    assert list(map(type, node.values)) == [float, float]


def test_the_kind_of_an_operand_survives_the_way_to_the_worker() -> None:
    nodes = All([MetadataCompare("k", Compare.EQ, value) for value in (1, 1.0, True, "1")])
    back = msgspec.msgpack.decode(msgspec.msgpack.encode(nodes), type=Where)
    assert isinstance(back, All)
    assert [type(clause.value) for clause in back.clauses] == [int, float, bool, str]  # type: ignore[union-attr]


@pytest.mark.parametrize("pattern", ["[", "(", "a(?=b)", r"(a)\1"])
def test_a_bad_pattern_is_refused_in_the_contracts_spelling(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match=r"^Regex syntax errror: "):
        parse_where_document({"$regex": pattern})
    with pytest.raises(InvalidArgument, match=r"^Regex syntax errror: "):
        parse_where({"$and": [{"#document": {"$not_regex": pattern}}]})


def test_both_filters_are_joined_and_null_means_none() -> None:
    assert parse_filters(None, None) is None
    assert parse_filters({"k": 1}, None) == MetadataCompare("k", Compare.EQ, 1)
    assert parse_filters({"k": 1}, {"$contains": "x"}) == All(
        [MetadataCompare("k", Compare.EQ, 1), DocumentContains("x")]
    )


def test_nesting_is_bounded() -> None:
    clause: Any = {"k": 1}
    for _ in range(NESTING_MAX):
        clause = {"$and": [clause]}
    parse_where(clause)
    with pytest.raises(InvalidArgument):
        parse_where({"$or": [clause]})


_scalars = st.one_of(
    st.text(max_size=5),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
_json = st.recursive(
    st.one_of(st.none(), _scalars),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["k", "$and", "$or", "$eq", "$in", "$gt", "$contains", "#document", "#id", "$regex"]),
            inner,
            max_size=2,
        ),
    ),
    max_leaves=8,
)


def outcome(parse: Callable[[Any], Where], clause: Any) -> Where | str:
    try:
        return parse(clause)
    except InvalidArgument as error:
        return error.message


@given(_json)
def test_any_json_is_a_filter_or_is_refused_in_the_contracts_words(clause: Any) -> None:
    for parse, words in ((parse_where, "where"), (parse_where_document, "where document")):
        result = outcome(parse, clause)
        if isinstance(result, str):
            assert result == f"Invalid {words} clause" or result.startswith("Regex syntax errror: ")
        else:
            assert msgspec.msgpack.decode(msgspec.msgpack.encode(result), type=Where) == result
