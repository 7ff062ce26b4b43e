"""Ids to rows, whatever their hashes do."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.segment.id_index import ONE_BY_ONE_MAX, IdIndex, write_id_index

_ids = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)


def _open(path: Path, ids: list[str], segment_id: str = "s") -> IdIndex:
    write_id_index(path, ids, segment_id)
    return IdIndex(path, pa.array(ids, pa.large_string()))


@given(stored=st.lists(_ids, min_size=1, max_size=30), asked=st.lists(_ids, max_size=30))
def test_finds_the_last_row_of_each_id_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, stored: list[str], asked: list[str]
) -> None:
    index = _open(tmp_path_factory.mktemp("ids") / "ids.index", stored)
    last = {text: row for row, text in enumerate(stored)}
    wanted = asked + stored
    for many in (wanted, wanted * ONE_BY_ONE_MAX, *([text] for text in wanted)):
        assert index.find(many) == [last.get(text, -1) for text in many]


def test_ids_whose_hashes_are_equal_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.segment.id_index.xxhash.xxh3_64_intdigest", lambda data, *_: len(data))
    stored = ["a", "b", "cc", "a", "dd", "e"]
    index = _open(tmp_path / "ids.index", stored)
    asked, found = ["a", "b", "e", "f", "dd", "cc", "zz", "ggg", ""], [3, 1, 5, -1, 4, 2, -1, -1, -1]
    assert index.find(asked) == found
    assert index.find(asked * ONE_BY_ONE_MAX) == found * ONE_BY_ONE_MAX


def test_asking_for_nothing_finds_nothing(tmp_path: Path) -> None:
    assert _open(tmp_path / "ids.index", ["a"]).find([]) == []


def test_every_segment_hashes_differently(tmp_path: Path) -> None:
    _open(tmp_path / "one", ["a"], "one")
    _open(tmp_path / "two", ["a"], "two")
    assert (tmp_path / "one").read_bytes()[32:40] != (tmp_path / "two").read_bytes()[32:40]
