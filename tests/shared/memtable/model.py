"""The meaning of operations over a plain dict, and a base that is one; what the memtable is measured against."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from shared.records.materialize import Record
from shared.records.model import Op, batch_schema

DIMENSION = 3


@dataclass(frozen=True)
class Row:
    """A record as the model sees it."""

    vector: tuple[float, ...]
    document: str | None
    metadata: dict[str, Any]
    uri: str | None
    inserted: int


@dataclass(frozen=True)
class Operation:
    op: Op
    id: str
    vector: tuple[float, ...] | None = None
    document: str | None = None
    metadata: dict[str, Any] | None = None
    uri: str | None = None


def step(state: dict[str, Row], operation: Operation, position: int) -> None:
    """Independent of `shared.records.materialize`, straight from docs/wire.md, section 12."""
    o, current = operation, state.get(operation.id)
    if o.op is Op.DELETE:
        state.pop(o.id, None)
    elif current is None and o.op in (Op.ADD, Op.UPSERT):
        assert o.vector is not None
        state[o.id] = Row(o.vector, o.document, _kept(o.metadata or {}), o.uri, position)
    elif current is not None and o.op in (Op.UPDATE, Op.UPSERT):
        state[o.id] = Row(
            current.vector if o.vector is None else o.vector,
            current.document if o.document is None else o.document,
            _kept({**current.metadata, **(o.metadata or {})}),
            current.uri if o.uri is None else o.uri,
            current.inserted,
        )


def _kept(metadata: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in metadata.items() if value is not None}


def batch(operations: Sequence[Operation], offsets: Sequence[int] | None = None) -> pa.RecordBatch:
    vectors = [o.vector for o in operations]
    some = any(vector is not None for vector in vectors)
    columns: list[Any] = [
        pa.array([int(o.op) for o in operations], pa.uint8()),
        pa.array(list(range(len(operations))) if offsets is None else offsets, pa.uint32()),
        [o.id for o in operations],
        pa.array([o.document for o in operations], pa.string()),
        pa.array([None if o.metadata is None else orjson.dumps(o.metadata).decode() for o in operations], pa.string()),
        pa.array([o.uri for o in operations], pa.string()),
    ]
    schema = batch_schema(DIMENSION if some else None)
    if some:
        columns.append(pa.array(vectors, schema.field("embedding").type))
    return pa.record_batch(columns, schema=schema)


class DictBase:
    """A base of two segments made from a model's state; rows in insertion order, split by `cut`."""

    def __init__(self, state: dict[str, Row], cut: int = 0) -> None:
        ordered = sorted(state.items(), key=lambda item: item[1].inserted)
        self.segments = [ordered[:cut], ordered[cut:]]
        self._places = {id_: (s, r) for s, segment in enumerate(self.segments) for r, (id_, _) in enumerate(segment)}

    def find(self, ids: Sequence[str]) -> list[tuple[int, int] | None]:
        return [self._places.get(id_) for id_ in ids]

    def record(self, ref: tuple[int, int]) -> Record:
        row = self.segments[ref[0]][ref[1]][1]
        metadata = orjson.dumps(row.metadata).decode() if row.metadata else None
        return Record(np.array(row.vector, np.float32), row.document, metadata, row.uri, row.inserted, row.inserted)
