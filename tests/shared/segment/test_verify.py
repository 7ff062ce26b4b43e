"""No changed, cut or missing byte goes unnoticed."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from shared.errors import Corrupt
from shared.limits import GRAPH_ROWS_MIN
from shared.segment.format import CODES, GRAPH, IDS, METADATA, RECORDS, SegmentInfo, verify
from shared.segment.reader import open_segment
from shared.segment.writer import write_segment
from tests.shared.segment.tables import params, table, vectors_of


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1 << at % 8]))


@pytest.fixture
def small(tmp_path: Path) -> SegmentInfo:
    return write_segment(tmp_path, "s", "p", table(vectors_of(12, 2)), params()).info


@pytest.mark.parametrize("name", [RECORDS, IDS, METADATA])
def test_every_flipped_byte_is_found(tmp_path: Path, small: SegmentInfo, name: str) -> None:
    path = tmp_path / name
    for at in range(path.stat().st_size):
        _flip(path, at)
        with pytest.raises(Corrupt, match=f"{name} fails its checksum"):
            verify(tmp_path, small)
        _flip(path, at)
    verify(tmp_path, small)


@pytest.mark.parametrize("name", [GRAPH, CODES])
def test_flipped_bytes_of_a_graph_and_of_codes_are_found(tmp_path: Path, name: str) -> None:
    info = write_segment(tmp_path, "s", "p", table(vectors_of(GRAPH_ROWS_MIN, 2)), params()).info
    size = (tmp_path / name).stat().st_size
    for at in [0, size - 1, *np.random.default_rng(0).integers(0, size, 60).tolist()]:
        _flip(tmp_path / name, at)
        with pytest.raises(Corrupt, match="checksum"):
            verify(tmp_path, info)
        _flip(tmp_path / name, at)
    verify(tmp_path, info)


@pytest.mark.parametrize("name", [RECORDS, IDS, METADATA])
def test_cut_grown_and_missing_files_are_found_when_opening(tmp_path: Path, small: SegmentInfo, name: str) -> None:
    path = tmp_path / name
    whole = path.read_bytes()
    for changed in (whole[:-1], whole + b"\0", b""):
        path.write_bytes(changed)
        for check in (verify, open_segment):
            with pytest.raises(Corrupt, match="bytes, not"):
                check(tmp_path, small)
    path.unlink()
    for check in (verify, open_segment):
        with pytest.raises(Corrupt, match="is missing"):
            check(tmp_path, small)


@pytest.mark.parametrize("name", [RECORDS, IDS, METADATA])
def test_files_of_another_format_are_not_opened(tmp_path: Path, small: SegmentInfo, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(Corrupt):
        open_segment(tmp_path, small)


@pytest.mark.parametrize("name", [GRAPH, CODES])
def test_a_graph_and_codes_that_are_none_are_not_opened(tmp_path: Path, name: str) -> None:
    info = write_segment(tmp_path, "s", "p", table(vectors_of(GRAPH_ROWS_MIN, 2)), params()).info
    path = tmp_path / name
    path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(Corrupt):
        open_segment(tmp_path, info)


@pytest.mark.parametrize(("field", "value"), [("rows", 11), ("dimension", 3)])
def test_files_that_contradict_the_manifest_are_not_opened(
    tmp_path: Path, small: SegmentInfo, field: str, value: int
) -> None:
    with pytest.raises(Corrupt):
        open_segment(tmp_path, msgspec.structs.replace(small, **{field: value}))


@pytest.mark.parametrize("name", ["../secret", "other.bin", RECORDS])
def test_a_manifest_cannot_name_other_files(tmp_path: Path, small: SegmentInfo, name: str) -> None:
    files = [*small.files[:-1], msgspec.structs.replace(small.files[-1], name=name)]
    with pytest.raises(Corrupt, match="other files"):
        verify(tmp_path, msgspec.structs.replace(small, files=files))
