"""The file `records.arrow` of a segment: mapped, checked, and its embeddings as a matrix in place."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from shared.errors import Corrupt
from shared.records.model import record_schema
from shared.segment.format import FORMAT, FORMAT_KEY, SegmentInfo
from shared.vectors.arrays import AnyArray, Vectors


def embedding_matrix(column: pa.FixedSizeListArray) -> Vectors:
    """The column as float32 [n, d] without copying, read-only; the array keeps the memory alive."""
    flat: AnyArray = column.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(len(column), column.type.list_size)


def open_records(path: Path, info: SegmentInfo) -> pa.RecordBatch:
    """The file's only record batch over mapped memory. Raises Corrupt when it is not the one that `info` describes."""
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            found = reader.schema.metadata or {}
            if found.get(FORMAT_KEY) != str(FORMAT).encode():
                raise Corrupt(f"segment {info.id}: {path.name} has format {found.get(FORMAT_KEY)!r}, not {FORMAT}")
            if reader.num_record_batches != 1 or not reader.schema.equals(record_schema(info.dimension)):
                raise Corrupt(f"segment {info.id}: {path.name} has other columns")
            batch = reader.get_batch(0)
    except pa.ArrowInvalid as error:
        raise Corrupt(f"segment {info.id}: {path.name}: {error}") from error
    if batch.num_rows != info.rows:
        raise Corrupt(f"segment {info.id}: {path.name} has {batch.num_rows} rows, not {info.rows}")
    return batch
