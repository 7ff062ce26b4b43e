"""From (key, type, value) to rows, exactly; in memory and mapped alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import Corrupt
from shared.records.where import Compare
from shared.segment.metadata_columns import Kind, NumberColumn, number_column
from shared.segment.metadata_index import MetadataIndex

BIG = 2**53
INT64 = [-(2**63), -(2**63) + 1, -BIG - 1, -BIG, -1, 0, 1, BIG - 1, BIG, BIG + 1, BIG + 2, 2**63 - 513, 2**63 - 1]
FLOATS = [-1e308, -(2.0**63), -1.5, -0.0, 0.5, 1.0, float(BIG), float(BIG + 2), 2.0**63, 1e308]
WANTED = [*INT64, *FLOATS, 10**400, -(10**400), float("inf"), float("-inf"), 2**63, 2**64, 0.1]
RELATIONS = {
    Compare.EQ: lambda a, b: a == b,
    Compare.GT: lambda a, b: a > b,
    Compare.GTE: lambda a, b: a >= b,
    Compare.LT: lambda a, b: a < b,
    Compare.LTE: lambda a, b: a <= b,
}


def _index(objects: list[dict[str, Any] | None], path: Path | None = None) -> MetadataIndex:
    index = MetadataIndex.from_json([None if o is None else orjson.dumps(o).decode() for o in objects])
    if path is None:
        return index
    index.write(path)
    return MetadataIndex.open(path)


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("op", RELATIONS)
def test_integers_and_floats_compare_exactly_beyond_2_to_53(tmp_path: Path, op: Compare, mapped: bool) -> None:
    values = [*INT64, *FLOATS]
    index = _index([{"k": value} for value in values], tmp_path / "m" if mapped else None)
    for wanted in WANTED:
        expected = [row for row, value in enumerate(values) if RELATIONS[op](value, wanted)]
        assert sorted(index.compare("k", op, wanted).tolist()) == expected, wanted


@given(
    values=st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20) | st.lists(st.floats(allow_nan=False), max_size=20),
    wanted=st.integers(-(2**70), 2**70) | st.floats(allow_nan=False),
)
def test_places_are_those_of_exact_comparison(values: list[float], wanted: float) -> None:
    kind = Kind.FLOAT if any(isinstance(value, float) for value in values) else Kind.INT
    column = number_column(
        np.array(values, dtype="<f8" if kind is Kind.FLOAT else "<i8"), np.arange(len(values), dtype=np.int32)
    )
    assert column.place(wanted, "left") == sum(value < wanted for value in values)
    assert column.place(wanted, "right") == sum(value <= wanted for value in values)


def test_rows_beyond_a_chunk_are_numbered_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.segment.metadata_index._CHUNK_ROWS", 4)
    texts = [
        None if i == 3 else orjson.dumps({"n": i % 3, "s": f"{i % 3}", "t": ["x", i > 5]}).decode() for i in range(11)
    ]
    for rows in (texts, pa.array(texts, pa.large_string())):
        index = MetadataIndex.from_json(rows)
        assert index.equals("n", 0).tolist() == index.equals("s", "0").tolist() == [0, 6, 9]
        assert index.contains("t", True).tolist() == [6, 7, 8, 9, 10]
        assert index.rows == 11


def test_nothing_stands_in_any_relation_to_nan() -> None:
    index = _index([{"k": 1}, {"k": 1.5}])
    assert [index.compare("k", op, float("nan")).tolist() for op in RELATIONS] == [[]] * len(RELATIONS)


@pytest.mark.parametrize("mapped", [False, True])
def test_types_do_not_mix_and_arrays_stand_apart(tmp_path: Path, mapped: bool) -> None:
    objects: list[dict[str, Any] | None] = [
        {"k": 1},
        {"k": 1.0},
        {"k": True},
        {"k": "1"},
        {"k": [1, 2, 1]},
        {"k": [1.0]},
        {"k": [True, True]},
        {"k": ["1", "a", "1"]},
        None,
        {},
        {"other": 1},
    ]
    index = _index(objects, tmp_path / "m" if mapped else None)
    assert sorted(index.equals("k", 1).tolist()) == sorted(index.equals("k", 1.0).tolist()) == [0, 1]
    assert index.equals("k", True).tolist() == [2]
    assert index.equals("k", False).tolist() == []
    assert index.equals("k", "1").tolist() == [3]
    assert index.contains("k", 1).tolist() == [4]
    assert index.contains("k", 1.0).tolist() == [5]
    assert index.contains("k", True).tolist() == [6]
    assert index.contains("k", "1").tolist() == [7]
    assert index.contains("k", "b").tolist() == index.contains("z", 1).tolist() == index.equals("z", "1").tolist() == []
    assert index.exists("k").tolist() == list(range(8))
    assert index.exists("z").tolist() == []
    assert ("k", Kind.STRS) in set(index.names())
    assert index.rows == len(objects)


@pytest.mark.parametrize("mapped", [False, True])
@given(values=st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), max_size=30))
def test_strings_are_found_by_value(tmp_path_factory: pytest.TempPathFactory, mapped: bool, values: list[str]) -> None:
    path = tmp_path_factory.mktemp("m") / "m" if mapped else None
    index = _index([{"k": value} for value in values], path)
    for wanted in {*values, "", "zz", "\U0010ffff"}:
        expected = [row for row, value in enumerate(values) if value == wanted]
        assert index.equals("k", wanted).tolist() == expected


def test_an_integer_beyond_int64_counts_as_the_float_it_reads_back_as() -> None:
    index = _index([{"k": 2**64 - 1}, {"k": [2**63]}])
    assert index.equals("k", 2.0**64).tolist() == [0]
    assert index.contains("k", 2.0**63).tolist() == [1]


def test_nulls_objects_and_empty_arrays_are_in_no_column() -> None:
    index = _index([{"a": None, "b": {"indices": [1], "values": [0.5]}, "c": []}])
    assert list(index.names()) == []


def test_a_column_is_read_only_when_asked_for(tmp_path: Path) -> None:
    objects: list[dict[str, Any] | None] = [{"id": f"value-{i}", "n": i} for i in range(1000)]
    index = _index(objects, tmp_path / "m")
    rows = index.equals("n", 700)
    assert rows.tolist() == [700]
    assert not rows.flags.owndata
    assert not rows.flags.writeable


def test_rows_of_equal_values_ascend() -> None:
    index = _index([{"k": i % 3, "s": str(i % 3)} for i in range(30)])
    assert index.equals("k", 1).tolist() == index.equals("s", "1").tolist() == list(range(1, 30, 3))


def test_an_index_of_no_rows_answers(tmp_path: Path) -> None:
    index = _index([], tmp_path / "m")
    assert index.equals("k", 1).tolist() == index.contains("k", "a").tolist() == index.exists("k").tolist() == []


@pytest.mark.parametrize("content", [b"", b"PCMETA", bytes(64), b"PCMETA\0\1" + bytes(24) + b"\xc1"])
def test_what_is_no_index_is_corrupt(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m").write_bytes(content)
    with pytest.raises(Corrupt):
        MetadataIndex.open(tmp_path / "m")


def test_a_directory_that_does_not_parse_is_corrupt(tmp_path: Path) -> None:
    index = _index([{"k": 1}])
    index.write(tmp_path / "m")
    whole = bytearray((tmp_path / "m").read_bytes())
    whole[-1] = 0xC1
    (tmp_path / "m").write_bytes(whole)
    with pytest.raises(Corrupt):
        MetadataIndex.open(tmp_path / "m")


def test_not_equal_is_no_slice_of_a_column() -> None:
    column = NumberColumn(np.array([1]), np.array([0], dtype=np.int32))
    with pytest.raises(ValueError, match="complement"):
        column.select(Compare.NE, 1)


def test_every_text_among_many_is_found_and_none_between(tmp_path: Path) -> None:
    texts = sorted({f"{'ä' * (n % 3)}{n * n}" for n in range(300)})
    index = MetadataIndex.from_json([orjson.dumps({"t": text}).decode() for text in texts])
    index.write(tmp_path / "m")
    for found in (index, MetadataIndex.open(tmp_path / "m")):
        assert [found.equals("t", text).tolist() for text in texts] == [[row] for row in range(len(texts))]
        assert not any(len(found.equals("t", text + end)) for text in texts for end in ("\0", "!", "\U0010ffff"))
        assert not any(len(found.equals("t", text)) for text in ("", "\0", "\U0010ffff"))
