import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.parse import json_counts, sliced_json
from frontend.parse.number_rows import NumberRows
from frontend.parse.sliced_json import parse_at_once, parse_sliced
from shared.errors import MalformedBody
from tests.frontend.parse.test_json_counts import TREES


def sliced(data: bytes, piece_bytes: int, rows: str | None = None) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sliced_json, "PIECE_BYTES", piece_bytes)
        patch.setattr(json_counts, "SLICE_BYTES", piece_bytes)
        return parse_sliced(data, rows)


@given(TREES, st.sampled_from([None, 1]), st.integers(2, 40))
def test_a_text_in_pieces_is_the_tree_that_it_is_as_a_whole(tree: Any, indent: int | None, piece_bytes: int) -> None:
    assert sliced(json.dumps(tree, indent=indent, ensure_ascii=False).encode(), piece_bytes) == tree


@given(
    TREES,
    st.integers(0, 200),
    st.sampled_from([b"", b",", b"]", b"}", b'"', b"[", b":", b"1", b"\\", b" ", b"\xff"]),
    st.integers(2, 40),
)
def test_a_broken_text_is_refused_in_pieces_if_it_is_as_a_whole(
    tree: Any, at: int, broken: bytes, piece_bytes: int
) -> None:
    data = json.dumps([tree, {"a": [1, 2, tree], "b": tree}]).encode()
    at %= len(data)
    data = data[:at] + broken + data[at + (not broken) :]
    try:
        whole = parse_at_once(data)
    except MalformedBody:
        with pytest.raises(MalformedBody, match=r" at line \d+ column \d+$|recursion"):
            sliced(data, piece_bytes)
    else:
        assert sliced(data, piece_bytes) == whole


@pytest.mark.parametrize(
    "text",
    [
        "[1,,2]", "[1,2,]", "[,1]", "[,]", '{"a":1,,"b":2}', '{"a":1,}', '{,"a":1}', "[1}", '{"a":1]', "[1]x",
        "x[1]", "[1]]", "[1", "[1][2]", "1,[2]",
        '{"a" 1,"b":2}', '{"a":,"b":2}', '{1:2,"b":3}', "[[1],[2},3]", '["a","b]', '[1 2,3,4,5,6,7,8,9]',
        '{"a":1 2,"b":3}',
        "[[1,2,3,4,5,6,7,8,9] 7,8]", "[7 [1,2,3,4,5,6,7,8,9],8]", '{"a":[1,2,3,4,5,6,7,8,9]"b":2}',
    ],
)  # fmt: skip
@pytest.mark.parametrize("piece_bytes", [1, 3, 6, 11])
def test_no_piece_hides_what_is_wrong_between_pieces(text: str, piece_bytes: int) -> None:
    with pytest.raises(MalformedBody):
        sliced(text.encode(), piece_bytes)


def test_the_place_of_a_mistake_is_that_in_the_whole_text() -> None:
    data = b'{"a": [1, 2,\n "\xc3\xa9", 3,\n "\xc3\xa9\xc3\xa9", tru, 4]}'
    with pytest.raises(MalformedBody) as whole:
        parse_at_once(data)
    with pytest.raises(MalformedBody) as pieces:
        sliced(data, 9)
    assert " at line 3 column " in whole.value.message
    assert pieces.value.message.rpartition(" at line ")[2] == whole.value.message.rpartition(" at line ")[2]


def test_containers_deeper_than_the_limit_are_refused() -> None:
    with pytest.raises(MalformedBody, match="recursion limit exceeded"):
        sliced(b"[" * 128 + b"]" * 128, 10)
    assert sliced(b"[" * 127 + b"]" * 127, 10)


def test_empty_containers_full_of_blanks_are_empty() -> None:
    assert sliced(b'[{         },[            ],{"a":[       ]}]', 4) == [{}, [], {"a": []}]


@pytest.mark.parametrize("rows", [[[1.5, 2], [3, 4], [5, 6]], [[0.1] * 30, [0.2] * 30], [[1], [2, 3], []]])
@pytest.mark.parametrize("piece_bytes", [4, 12, 25])
def test_rows_of_numbers_in_pieces_are_one_array(rows: list[list[float]], piece_bytes: int) -> None:
    data = json.dumps({"ids": ["a", "b"], "embeddings": rows, "more": [{"k": "[[1]]"}] * 3}).encode()
    found = sliced(data, piece_bytes, "embeddings")
    column = found.pop("embeddings")
    assert isinstance(column, NumberRows)
    assert column.lengths == [len(row) for row in rows]
    assert column.values.tolist() == np.array([number for row in rows for number in row], np.float32).tolist()
    assert found == {"ids": ["a", "b"], "more": [{"k": "[[1]]"}] * 3}


@pytest.mark.parametrize(
    "rows", [[[1, None], [2, 3]], ["AAAA", "BBBB", "CCCC"], [[1], [[2]], [3]], [[1], 2, [3, 4]], 7, {"a": [[1]]}]
)
def test_what_is_not_rows_of_numbers_is_left_as_it_is(rows: Any) -> None:
    data = json.dumps({"embeddings": rows, "x": 1}).encode()
    assert sliced(data, 5, "embeddings") == {"embeddings": rows, "x": 1}


def test_no_long_piece_is_parsed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other threads wait while a piece is parsed: the longest one says for how long."""
    lengths: list[int] = []

    def loads(piece: bytes) -> Any:
        lengths.append(len(piece))
        return orjson.loads(piece)

    monkeypatch.setattr(sliced_json, "orjson", SimpleNamespace(loads=loads, JSONDecodeError=orjson.JSONDecodeError))
    nested: Any = {f"k{number}": {"a": [number] * 3} for number in range(40_000)}
    tree = {
        "ids": list(range(200_000)),
        "where": {"$and": [{"$or": [nested, nested]}]},
        "metadatas": [{"k": 1}] * 90_000,
    }
    data = orjson.dumps(tree)
    assert parse_sliced(data) == tree
    assert max(lengths) <= sliced_json.PIECE_BYTES + 2
    assert len(lengths) > len(data) // sliced_json.PIECE_BYTES
