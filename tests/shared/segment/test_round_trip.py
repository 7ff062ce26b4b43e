"""What is written is what is read, in place."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from shared.limits import GRAPH_ROWS_MIN
from shared.records.model import record_schema
from shared.segment.format import CODES, GRAPH, RECORDS, SegmentInfo, verify
from shared.segment.reader import open_segment
from shared.segment.writer import write_segment
from shared.vectors.codes import encode
from shared.vectors.space import Space
from tests.shared.segment.tables import build, params, table, vectors_of


@pytest.mark.parametrize("rows", [1, 7, GRAPH_ROWS_MIN])
def test_every_column_comes_back(tmp_path: Path, rows: int) -> None:
    vectors = vectors_of(rows, 5)
    records = table(vectors)
    info, segment = build(tmp_path / "s", records)
    verify(tmp_path / "s", info)
    assert segment.records.schema.equals(record_schema(5))
    assert segment.records.equals(records)
    assert np.array_equal(segment.vectors, vectors)
    assert segment.inserted.tolist() == list(range(1, rows + 1))
    assert segment.ids.to_pylist() == records.column("id").to_pylist()
    assert segment.documents.to_pylist() == records.column("document").to_pylist()
    assert (info.rows, info.dimension, info.graph) == (rows, 5, rows >= GRAPH_ROWS_MIN)
    assert (tmp_path / "s" / GRAPH).exists() == info.graph


def test_codes_are_those_of_the_vectors(tmp_path: Path) -> None:
    vectors = vectors_of(GRAPH_ROWS_MIN, 5)
    _, segment = build(tmp_path / "s", table(vectors), Space.COSINE)
    assert segment.codes is not None
    made = encode(Space.COSINE, vectors)
    assert np.array_equal(segment.codes.numbers, made.numbers)
    assert np.array_equal(segment.codes.terms, made.terms)


def test_a_segment_of_before_there_were_codes_is_read_without(tmp_path: Path) -> None:
    vectors = vectors_of(GRAPH_ROWS_MIN, 5)
    info, _ = build(tmp_path / "s", table(vectors))
    (tmp_path / "s" / CODES).unlink()
    files = [file for file in info.files if file.name != CODES]
    old = open_segment(tmp_path / "s", msgspec.structs.replace(info, files=files), graph=False)
    assert old.codes is None
    assert old.search(vectors[:1], 3)[0][0] == 0


def test_vectors_are_the_mapped_file_itself(tmp_path: Path) -> None:
    _, segment = build(tmp_path / "s", table(vectors_of(100, 8)))
    assert not segment.vectors.flags.owndata
    assert not segment.vectors.flags.writeable
    assert segment.vectors.flags.c_contiguous
    assert str(tmp_path / "s" / RECORDS) in Path("/proc/self/maps").read_text()


def test_tables_of_many_chunks_and_of_narrow_text_are_taken(tmp_path: Path) -> None:
    whole = table(vectors_of(30, 4))
    narrow = pa.schema(
        [field.with_type(pa.string()) if field.type == pa.large_string() else field for field in whole.schema]
    )
    pieces = pa.concat_tables([whole.slice(0, 11), whole.slice(11, 2), whole.slice(13)]).cast(narrow)
    _, segment = build(tmp_path / "s", pieces)
    assert segment.records.equals(whole)


def test_columns_beside_the_schema_are_left_out_and_order_does_not_matter(tmp_path: Path) -> None:
    whole = table(vectors_of(3, 4))
    shuffled = whole.select(whole.column_names[::-1]).append_column("extra", pa.array([1, 2, 3]))
    _, segment = build(tmp_path / "s", shuffled)
    assert segment.records.equals(whole)


def test_id_bounds_are_by_utf8_bytes(tmp_path: Path) -> None:
    info, _ = build(tmp_path / "s", table(vectors_of(4, 2), ids=["b", "\U0001f600", "a", "\uffff"]))
    assert (info.id_min, info.id_max) == ("a", "\U0001f600")


def test_info_survives_json(tmp_path: Path) -> None:
    info, _ = build(tmp_path / "s", table(vectors_of(4, 2)), Space.COSINE)
    assert msgspec.json.decode(msgspec.json.encode(info), type=SegmentInfo) == info


def test_an_empty_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at least one row"):
        write_segment(tmp_path, "s", "p", table(vectors_of(1, 2)).slice(0, 0), params())


def test_nulls_where_none_may_be_are_refused(tmp_path: Path) -> None:
    records = table(vectors_of(2, 2))
    at = records.column_names.index("id")
    broken = records.set_column(at, pa.field("id", pa.large_string()), pa.array(["a", None], pa.large_string()))
    with pytest.raises(ValueError, match=r"non-nullable|nulls"):
        write_segment(tmp_path, "s", "p", broken, params())


def test_arrays_outlive_their_segment_and_its_files(tmp_path: Path) -> None:
    vectors = vectors_of(50, 3)
    info, segment = build(tmp_path / "s", table(vectors))
    kept, ids = segment.vectors, segment.ids
    segment.close()
    for file in info.files:
        (tmp_path / "s" / file.name).unlink()
    del segment
    assert np.array_equal(kept, vectors)
    assert ids[7].as_py() == "id-7"
