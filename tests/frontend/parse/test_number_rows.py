"""Rows of numbers parsed into one array: the same as by way of a tree, or not at all."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.parse.embeddings import decode, read_embeddings
from frontend.parse.json_text import parse
from frontend.parse.number_rows import NumberRows, parse_with_rows
from shared.errors import MalformedBody, PolychromeError, WrongShape

NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**70), 2**70)
ROWS = st.lists(st.lists(NUMBERS, max_size=4), max_size=4)
ODD = st.none() | st.booleans() | st.text('"[],:\\', max_size=3) | st.lists(NUMBERS, max_size=2) | NUMBERS
COLUMNS = ROWS | st.lists(st.lists(NUMBERS | ODD, max_size=3) | ODD, max_size=3)
OTHERS = st.dictionaries(st.sampled_from(["ids", "x", 'rows"', "é"]), ODD | st.dictionaries(st.text(max_size=2), ODD))


def outcome(text: bytes, rows: str | None) -> Any:
    """What a write with this body comes to, as far as its vectors go."""
    try:
        tree = parse(text, rows)
        embeddings = decode(read_embeddings(tree.pop("rows")))
    except PolychromeError as error:
        return type(error), error.message
    return tree, embeddings.values.tolist(), embeddings.widths, embeddings.count


@given(COLUMNS, OTHERS, st.booleans(), st.sampled_from([None, 1]))
def test_every_body_comes_to_the_same_as_by_way_of_a_tree(column: Any, others: Any, last: bool, indent: Any) -> None:
    members = {**others, "rows": column} if last else {"rows": column, **others}
    text = json.dumps(members, indent=indent).encode()
    assert outcome(text, "rows") == outcome(text, None)


@pytest.mark.parametrize(
    "text", [b'{"rows":[[1,2.5],[-3e0,4]],"ids":["a"]}', b'{ "ids": ["a"], "rows" : [ [1,2.5],\n[-3,4] ] }']
)
def test_plain_rows_become_an_array(text: bytes) -> None:
    tree = parse_with_rows(text, "rows")
    assert tree is not None
    rows = tree["rows"]
    assert isinstance(rows, NumberRows)
    assert (rows.values.tolist(), rows.lengths, tree["ids"]) == ([1, 2.5, -3, 4], [2, 2], ["a"])


@pytest.mark.parametrize(
    "text",
    [
        b'{"rows":[[1,[2]]]}',
        b'{"rows":[[],[[]]]}',
        b'{"rows":[[1,true]]}',
        b'{"rows":[[1,null]]}',
        b'{"rows":[["1"]]}',
        b'{"rows":[[1],2]}',
        b'{"rows":[[{"a":1}]]}',
        b'[{"rows":[[1]]}]',
        b'{"x":{"rows":[[1]]}}',
        b'{"rows":[[1]],"rows":[[1]]}',
        b'{"rows":[[1]]',
        b'\xef\xbb\xbf{"rows":[[1]]}',
        b'{"rows":[[1e400]]}',
        b'{"rows":[[1]],"x":"\xff"}',
        b'{"rows":[[1]],"a\\u0000b":1}',
        b'{"x":{"rows":[[1]]},"rows":[[1,[2]]]}',
        b'{"\\"rows":[[1]],"rows":[[1,[2]]]}',
    ],
)
def test_what_is_not_plain_is_left_to_the_general_parse(text: bytes) -> None:
    assert parse_with_rows(text, "rows") is None


def test_a_repeated_member_is_found_beside_rows() -> None:
    for text in (
        b'{"rows":[[1]],"x":{"a":1,"a":2}}',
        b'{"rows":[[1]],"rows":[[1]]}',
        b'{"rows":[[1]],"ids":1,"ids":2}',
    ):
        with pytest.raises(WrongShape, match="duplicate field"):
            parse(text, "rows")
    with pytest.raises(MalformedBody):
        parse(b'{"rows":[[1]],"x":' + b"[" * 500 + b"]" * 500 + b"}", "rows")


def test_small_bodies_share_a_parser_and_large_ones_do_not() -> None:
    small = parse_with_rows(b'{"rows":[[1]]}', "rows")
    large = parse_with_rows(orjson.dumps({"rows": np.ones((400, 100)).tolist(), "ids": ["b"]}), "rows")
    other = parse_with_rows(b'{"rows":[[2]]}', "rows")
    assert small is not None
    assert large is not None
    assert other is not None
    assert [tree["rows"].values[0] for tree in (small, large, other)] == [1, 1, 2]
