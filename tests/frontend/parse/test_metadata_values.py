from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.parse.metadata_values import read_metadatas
from shared.errors import WrongShape
from shared.records.materialize import new_metadata, patch_metadata


def texts(rows: list[Any], *, patch: bool = False) -> list[str | None]:
    return [text if text is None else text.decode() for text in read_metadatas(rows, patch=patch).texts()]


def test_values_are_stored_by_their_spelling() -> None:
    row = {"i": 2, "f": 2.0, "s": "2", "b": True, "e": 1e300, "u": "日本"}
    assert texts([row]) == ['{"i":2,"f":2.0,"s":"2","b":true,"e":1e+300,"u":"日本"}']


def test_integers_beyond_64_bits_become_floats() -> None:
    assert texts([{"a": 2**63, "b": -(2**63), "c": 2**63 - 1}]) == [
        orjson.dumps({"a": float(2**63), "b": -(2**63), "c": 2**63 - 1}).decode()
    ]
    assert texts([{"a": [1, 2**63]}]) == [orjson.dumps({"a": [1.0, float(2**63)]}).decode()]


def test_arrays_of_mixed_numbers_become_floats() -> None:
    assert texts([{"a": [1, 2.5], "b": [1, 2], "c": [True], "d": ["x"]}]) == [
        '{"a":[1.0,2.5],"b":[1,2],"c":[true],"d":["x"]}'
    ]


def test_an_empty_array_says_nothing_in_an_add_and_removes_in_a_patch() -> None:
    assert texts([{"a": []}, {"a": [], "b": 1}]) == [None, '{"b":1}']
    assert texts([{"a": []}], patch=True) == ['{"a":null}']


def test_null_removes_in_a_patch_and_is_refused_in_an_add() -> None:
    assert texts([{"a": None, "b": 1}], patch=True) == ['{"a":null,"b":1}']
    with pytest.raises(WrongShape):
        texts([{"a": 1, "b": None}])


def test_rows_without_members_are_none() -> None:
    assert texts([None, {}]) == [None, None]
    assert texts([None, {}], patch=True) == [None, None]


@pytest.mark.parametrize(
    "row",
    [
        5,
        "x",
        [],
        {"a": {"b": 1}},
        {"a": [1, "a"]},
        {"a": [True, 1]},
        {"a": [None]},
        {"a": [[1]]},
        {"a": [{}]},
        {"sv": {"indices": [1]}},
        {"sv": {"values": [1]}},
        {"sv": {"indices": [-1], "values": [1]}},
        {"sv": {"indices": ["a"], "values": [1]}},
        {"sv": {"indices": [2**32], "values": [1]}},
        {"sv": {"#type": "other", "indices": [1], "values": [1]}},
    ],
)
@pytest.mark.parametrize("patch", [False, True])
def test_values_of_another_shape_are_refused(row: Any, patch: bool) -> None:
    with pytest.raises(WrongShape):
        read_metadatas([None, row], patch=patch)


@pytest.mark.parametrize(
    "row",
    [
        {"": 1},
        {"#x": 1},
        {"$x": 1},
        {"$x": None},
        {"sv": {"indices": [2, 1], "values": [1, 2]}},
        {"sv": {"indices": [1, 1], "values": [1, 2]}},
        {"sv": {"indices": [1], "values": [1, 2]}},
        {"sv": {"indices": [1], "values": [1], "tokens": ["a", "b"]}},
    ],
)
def test_the_first_bad_row_is_named(row: Any) -> None:
    good = {"a": 1, "sv": {"indices": [1], "values": [1]}}
    assert read_metadatas([good, None, row, row], patch=True).problem() == "Invalid metadata at index 2"
    assert read_metadatas([good, None], patch=True).problem() is None


def test_a_valid_sparse_vector_is_found() -> None:
    sparse = {"#type": "sparse_vector", "indices": [1, 5], "values": [1, 0.5], "tokens": None}
    metadatas = read_metadatas([{"a": 1, "sv": sparse}], patch=False)
    assert metadatas.problem() is None
    assert metadatas.kinds() == {("a", "int"), ("sv", "sparse_vector")}


def test_a_sparse_vector_is_stored_tagged_and_as_the_float32_that_it_is() -> None:
    [text] = read_metadatas([{"sv": {"indices": [1, 5], "values": [0.1, 1]}}], patch=False).texts()
    assert text == b'{"sv":{"#type":"sparse_vector","indices":[1,5],"values":[0.1,1.0],"tokens":null}}'
    [text] = read_metadatas([{"sv": {"indices": [], "values": [], "tokens": []}}], patch=False).texts()
    assert text == b'{"sv":{"#type":"sparse_vector","indices":[],"values":[],"tokens":[]}}'


def test_a_sparse_value_beyond_float32_is_refused() -> None:
    huge = read_metadatas([{"sv": {"indices": [1], "values": [1e39]}}], patch=False)
    assert huge.problem() == "Invalid metadata at index 0"


def test_kinds_are_those_of_the_schema() -> None:
    rows = [
        {"a": 1, "chroma:x": 1, "l": ["s"], "n": [1, 2.0], "big": 2**63},
        {"a": "s", "b": True, "f": 1.5},
        {"l": [True], "gone": None, "empty": []},
    ]
    assert read_metadatas(rows, patch=True).kinds() == {
        ("a", "int"),
        ("a", "string"),
        ("b", "bool"),
        ("f", "float"),
        ("l", "string"),
        ("l", "bool"),
        ("n", "float"),
        ("big", "float"),
    }


_keys = st.text(min_size=1, max_size=4).filter(lambda key: key[0] not in "#$")
_scalar = st.one_of(
    st.text(max_size=4),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False, allow_infinity=False),
)
_value = st.one_of(
    _scalar,
    st.lists(st.text(max_size=3), min_size=1, max_size=3),
    st.lists(st.booleans(), min_size=1, max_size=3),
    st.lists(st.integers(-9, 9), min_size=1, max_size=3),
)
_row = st.dictionaries(_keys, _value, max_size=4)
_patch = st.dictionaries(_keys, st.one_of(_value, st.none(), st.just([])), max_size=4)


def _typed(value: Any) -> Any:
    return (type(value), value) if not isinstance(value, list) else [(type(item), item) for item in value]


@given(st.lists(st.one_of(st.none(), _row), max_size=4))
def test_what_is_stored_reads_back_as_it_was_sent(rows: list[dict[str, Any] | None]) -> None:
    back = [None if text is None else orjson.loads(text) for text in texts(rows)]
    assert back == [row or None for row in rows]
    for row, read in zip(rows, back, strict=True):
        for key, value in (row or {}).items():
            assert _typed(read[key]) == _typed(value)


@given(_row, _patch)
def test_a_patch_means_what_the_contract_says(row: dict[str, Any], patch: dict[str, Any]) -> None:
    current = new_metadata(texts([row], patch=True)[0])
    merged = patch_metadata(current, texts([patch], patch=True)[0])
    expected = {key: value for key, value in {**row, **patch}.items() if value is not None and value != []}
    assert (orjson.loads(merged) if merged else {}) == expected
