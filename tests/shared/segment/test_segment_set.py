"""Segments and their tombstones as one set of records."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyroaring import BitMap

from shared.segment.segment_set import RowRef, SegmentSet
from tests.shared.segment.tables import build, table, vectors_of


def test_find_sees_live_rows_only_wherever_they_are(tmp_path: Path) -> None:
    _, old = build(tmp_path / "a", table(vectors_of(4, 2), ids=["a", "b", "c", "d"]))
    _, new = build(tmp_path / "b", table(vectors_of(3, 2), ids=["b", "c", "e"], first=5))
    stack = SegmentSet([old, new], [BitMap([1, 2]), BitMap([1])])
    assert stack.find(["a", "b", "c", "d", "e", "f"]) == [
        RowRef(0, 0),
        RowRef(1, 0),
        None,
        RowRef(0, 3),
        RowRef(1, 2),
        None,
    ]
    assert stack.live_rows == 4


def test_the_appended_row_of_an_id_that_is_twice_in_a_segment_is_found(tmp_path: Path) -> None:
    _, segment = build(tmp_path / "a", table(vectors_of(3, 2), ids=["a", "b", "a"]))
    assert SegmentSet([segment], [BitMap([0])]).find(["a"]) == [RowRef(0, 2)]
    assert SegmentSet([segment], [BitMap([0, 2])]).find(["a"]) == [None]


def test_record_has_every_column(tmp_path: Path) -> None:
    vectors = vectors_of(8, 2)
    _, segment = build(tmp_path / "a", table(vectors, first=100))
    stack = SegmentSet([segment], [BitMap()])
    record = stack.record(RowRef(0, 7))
    assert record.embedding.tolist() == vectors[7].tolist()
    assert record[1:] == ("döcument 7", '{"n":7,"even":false}', "file://7", 107, 108)
    bare = stack.record(RowRef(0, 0))
    assert (bare.document, bare.metadata, bare.uri) == (None, None, "file://0")


def test_an_empty_stack_has_nothing() -> None:
    stack = SegmentSet([], [])
    assert stack.find(["a"]) == [None]
    assert stack.live_rows == 0


def test_a_bitmap_per_segment_is_required() -> None:
    with pytest.raises(ValueError, match="bitmaps"):
        SegmentSet([], [BitMap()])
