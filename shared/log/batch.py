"""Batches of operations: built from columns, split by shard, encoded as the payload of log entries.

A payload is one Arrow IPC stream: the schema message, one record batch, the end mark. Buffers are 8-byte aligned in it,
so that decoding copies nothing.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import xxhash

from shared import limits
from shared.cluster.placement import Layout, shard_of
from shared.errors import Corrupt
from shared.records.model import Op, batch_schema, embedding_type
from shared.vectors.arrays import Int64Array, RowNumbers, Uint8Array, Vectors

ROW_OVERHEAD_BYTES = 32
"""About what the operation, the offset, the string offsets and the validity bits of a row take."""


_PLAIN_COLUMNS: Final = len(batch_schema(None))

_PREFIX_BYTES: Final = 8
"""Bytes at the beginning of a message of an Arrow IPC stream: a mark, then the length of the message's metadata."""

_END_OF_STREAM: Final = b"\xff\xff\xff\xff\x00\x00\x00\x00"
"""The end mark of an Arrow IPC stream: a message of length 0."""


@dataclass(frozen=True, slots=True)
class EncodedEntry:
    """The payload of one log entry: `count` operations, the first of them at `offset` in its append."""

    offset: int
    count: int
    payload: bytes

    @property
    def checksum(self) -> str:
        """The checksum that goes into the entry beside the payload."""
        return payload_checksum(self.payload)


def payload_checksum(payload: bytes) -> str:
    """The checksum of an entry's payload: xxh3-128 in hex."""
    return xxhash.xxh3_128_hexdigest(payload)


def build_batch(
    ops: Op | Uint8Array,
    ids: Sequence[str],
    embeddings: Vectors | None = None,
    embedding_rows: RowNumbers | None = None,
    documents: Sequence[str | None] | None = None,
    metadatas: Sequence[str | bytes | None] | None = None,
    uris: Sequence[str | None] | None = None,
) -> pa.RecordBatch:
    """A batch of operations with the schema `shared.records.model.batch_schema` and the offsets 0 to n - 1. `ops` is
    one operation for all, or an array of `Op` codes, uint8 [n].

    `embeddings` is float32 [m, d]; `embedding_rows` says which rows they belong to, ascending (None: all, m = n).
    Metadata is JSON text. A column that is None is null everywhere.
    """
    count = len(ids)
    codes = np.full(count, int(ops), dtype=np.uint8) if isinstance(ops, Op) else ops.astype(np.uint8, copy=False)
    columns: list[Any] = [
        pa.array(codes),
        pa.array(np.arange(count, dtype=np.uint32)),
        pa.array(ids, type=pa.string()),
        _strings(documents, count),
        _strings(metadatas, count),
        _strings(uris, count),
    ]
    if embeddings is None or len(embeddings) == 0:
        return pa.RecordBatch.from_arrays(columns, schema=batch_schema(None))
    columns.append(_vectors(embeddings, embedding_rows, count))
    return pa.RecordBatch.from_arrays(columns, schema=batch_schema(embeddings.shape[1]))


def _strings(values: Sequence[str | bytes | None] | None, count: int) -> pa.Array:
    return pa.nulls(count, pa.string()) if values is None else pa.array(values, type=pa.string())


def _vectors(embeddings: Vectors, rows: RowNumbers | None, count: int) -> pa.Array:
    """The column of embeddings: a fixed-size list per row, null for rows that have none."""
    dimension = embeddings.shape[1]
    if rows is None or len(rows) == count:
        values = np.ascontiguousarray(embeddings, dtype=np.float32)
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), type=embedding_type(dimension))
    values = np.zeros((count, dimension), dtype=np.float32)
    values[rows] = embeddings
    absent = np.ones(count, dtype=bool)
    absent[rows] = False
    return pa.FixedSizeListArray.from_arrays(
        pa.array(values.reshape(-1)), type=embedding_type(dimension), mask=pa.array(absent)
    )


def split_batch(batch: pa.RecordBatch, layout: Layout) -> dict[int, list[EncodedEntry]]:
    """The entries to append to each shard of the layout: the batch's rows by the shard of their ids, in order, cut into
    entries of about `limits.ENTRY_BYTES_TARGET` bytes.
    """
    if layout.count == 1:
        return {layout.first: _encode_cut(batch)} if batch.num_rows else {}
    homes = shard_of(batch.column("id").to_pylist(), layout.count)
    return {
        layout.first + int(home): _encode_cut(batch.take(pa.array(np.flatnonzero(homes == home))))
        for home in np.unique(homes)
    }


def _encode_cut(batch: pa.RecordBatch) -> list[EncodedEntry]:
    if batch.get_total_buffer_size() <= limits.ENTRY_BYTES_TARGET:
        return [_encode(batch)]
    ends = np.cumsum(_row_bytes(batch))
    entries = []
    start = 0
    while start < batch.num_rows:
        begun = int(ends[start - 1]) if start else 0
        # At least one row, however large: a row is never divided.
        stop = max(start + 1, int(np.searchsorted(ends, begun + limits.ENTRY_BYTES_TARGET, side="right")))
        entries.append(_encode(batch.slice(start, stop - start)))
        start = stop
    return entries


def _row_bytes(batch: pa.RecordBatch) -> Int64Array:
    """Approximate bytes of each row."""
    total = np.full(batch.num_rows, ROW_OVERHEAD_BYTES, dtype=np.int64)
    for name in ("id", "document", "metadata", "uri"):
        column = batch.column(name)
        offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset : column.offset + len(column) + 1]
        total += np.diff(offsets)
    if "embedding" in batch.schema.names:
        total += 4 * batch.schema.field("embedding").type.list_size
    return total


def _encode(batch: pa.RecordBatch) -> EncodedEntry:
    # What `pa.ipc.new_stream` writes, without setting up a writer for every entry.
    payload = b"".join((_schema_message(_dimension(batch.schema)), batch.serialize(), _END_OF_STREAM))
    return EncodedEntry(batch.column("offset")[0].as_py(), batch.num_rows, payload)


@functools.lru_cache(maxsize=64)
def _schema_message(dimension: int | None) -> bytes:
    message: bytes = batch_schema(dimension).serialize().to_pybytes()
    return message


def _empty_payload() -> bytes:
    schema = batch_schema(None)
    batch = pa.RecordBatch.from_arrays([pa.array([], field.type) for field in schema], schema=schema)
    return b"".join((_schema_message(None), batch.serialize(), _END_OF_STREAM))


EMPTY_PAYLOAD: Final = _empty_payload()
"""A payload without operations."""


def dimension_of(batch: pa.RecordBatch) -> int | None:
    """The width of the batch's embeddings; None when it has none."""
    place = batch.schema.get_field_index("embedding")
    return None if place < 0 else int(batch.schema.field(place).type.list_size)


def decode_batch(payload: bytes) -> pa.RecordBatch:
    """The batch in a payload, as views of its bytes. Raises Corrupt for whatever is not a valid batch: readers follow
    its offsets, and take its text for UTF-8, without looking.
    """
    # What `pa.ipc.open_stream` reads, without setting up a reader for every entry.
    end = _PREFIX_BYTES + int.from_bytes(payload[_PREFIX_BYTES - 4 : _PREFIX_BYTES], "little")
    try:
        batch = pa.ipc.read_record_batch(memoryview(payload)[end:], _schema(payload[:end]))
        batch.validate(full=True)
    except (pa.ArrowException, OSError, EOFError, ValueError) as error:
        raise Corrupt(f"a log entry does not decode: {error}") from error
    return batch


@functools.lru_cache(maxsize=64)
def _schema(message: bytes) -> pa.Schema:
    """The schema in a schema message. Raises Corrupt when it is not one that `batch_schema` makes."""
    schema = pa.ipc.read_schema(pa.py_buffer(message))
    if schema != batch_schema(_dimension(schema)) or _dimension(schema) == 0:
        raise Corrupt(f"the columns of a log entry are {schema.names}")
    return schema


def _dimension(schema: pa.Schema) -> int | None:
    """The dimension of the embeddings, None when there are none."""
    width: pa.DataType = schema.field(_PLAIN_COLUMNS).type if len(schema) > _PLAIN_COLUMNS else None
    return width.list_size if isinstance(width, pa.FixedSizeListType) else None
