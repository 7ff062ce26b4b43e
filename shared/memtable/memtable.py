"""The log's tail in memory, applied to the base segments.

A row of the tail holds one version of one record (`versions`). A record that an operation of the tail changed lives
wholly in the tail; its row in a base segment, if it had one, is *deleted* (`deletions`).

```text
operation at position p         row of the tail                            row of a base segment
inserts a record                new row, born p + 1                        -
merges into a row of the tail   old row dies p + 1, new one born p + 1     -
merges into a base row          new row born p + 1                         deleted, dies p + 1
removes a row of the tail       row dies p + 1                             -
removes a base row              -                                          deleted, dies p + 1
```

What an operation does to a record depends on the operations before it and not on where the record lies. So the rows
that are born above some position are the same, one by one, whatever the base segments: a tail over the segments of a
later manifest is the end of the tail over those of the earlier one (`rebased`).

A read as of position T (exclusive: everything below T is applied) sees exactly the rows with `born <= T < died`, and
the base rows that were not deleted, or have `died > T`. So T is all that a reader needs: what is applied later is born
above T or dies above T, and changes nothing that the reader looks at.

Threads. One thread applies at a time; any number read, without a lock, as of a T that was fully applied before they
began (see `versions`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from shared.errors import Corrupt
from shared.memtable.deletions import Deletions
from shared.memtable.versions import NEVER, NO_ROW, Tail, Versions
from shared.records.materialize import Change, Given, Record, new_metadata, resolve
from shared.records.model import Op, embedding_type, record_schema
from shared.vectors.arrays import Positions, RowNumbers, Vectors

_INSERTING: Final = frozenset({Op.ADD, Op.UPSERT})
"""The operations that insert a record which is absent."""

_OP_MAX: Final = int(max(Op))

_Ref = tuple[int, int]
"""Number of a base segment, row in it."""


class BaseRecords(Protocol):
    """The records of the base segments, as they were before the tail: what the tail deletes is still there."""

    def find(self, ids: Sequence[str]) -> Sequence[_Ref | None]:
        """(segment, row) of each id that has a live row, None for the others."""
        ...

    def record(self, ref: Any) -> Record:
        """The record at a reference that `find` returned."""
        ...


class _Operations(NamedTuple):
    """The columns of n operations, parallel. `vectors` is [n, dimension]; `given` says which of them have one."""

    ops: list[int]
    ids: list[str]
    positions: Positions
    vectors: Vectors
    given: list[bool]
    documents: list[str | None]
    metadatas: list[str | None]
    uris: list[str | None]


class Memtable:
    """The tail of one shard over its base segments. `dimension` is None until the first batch with embeddings."""

    def __init__(self, base: BaseRecords, dimension: int | None) -> None:
        self.base = base
        self.dimension = dimension
        self.position = 0
        """Everything below is applied. Invariant: no row is born above it, and none dies above it but at NEVER."""
        self.bytes = 0
        """About how many bytes the tail takes in memory."""

        self._versions = Versions(dimension)
        # The newest row of every id that the tail changed, dead or alive; NO_ROW when it only deleted the base row.
        # Invariant: an id that is not here is as the base segments have it; the base row of an id that is here is
        # deleted, if there ever was one. So an id that changes is looked up in the base segments at most once.
        self._latest: dict[str, int] = {}
        self._deletions: defaultdict[int, Deletions] = defaultdict(Deletions)

    # ---- writing

    def apply(self, batch: pa.RecordBatch, first: int, end: int) -> None:
        """Applies one log entry, a batch of `shared.records.model.batch_schema`, of the append at positions [first,
        end). Entries come in log order.

        Raises Corrupt for a batch that no frontend writes; the memtable is of no use after that.
        """
        operations = self._operations(batch, first)
        positions = operations.positions
        if len(positions) and (positions[0] < first or positions[-1] >= end or first < 1):
            raise Corrupt(f"operations at {positions[0]} to {positions[-1]} in an append of [{first}, {end})")
        unknown = list({id_ for id_ in operations.ids if id_ not in self._latest})
        below = dict(zip(unknown, self.base.find(unknown), strict=True))
        if self._is_new(operations, below):
            self._insert(operations)
        else:
            self._apply_each(operations, below)
        self.position = max(self.position, end)
        self.bytes += batch.get_total_buffer_size()

    def _operations(self, batch: pa.RecordBatch, first: int) -> _Operations:
        ops, offsets, ids, documents, metadatas, uris, *embeddings = batch.columns
        if ops.null_count or offsets.null_count or ids.null_count:
            raise Corrupt("a batch of operations has nulls where there are none")
        codes = ops.to_pylist()
        if codes and max(codes) > _OP_MAX:
            raise Corrupt(f"a batch has operations of the unknown kind {max(codes)}")
        vectors, given = self._embeddings(embeddings[0] if embeddings else None, batch.num_rows)
        return _Operations(
            ops=codes,
            ids=ids.to_pylist(),
            positions=np.add(offsets.to_numpy(), first, dtype=np.int64),
            vectors=vectors,
            given=given,
            documents=documents.to_pylist(),
            metadatas=metadatas.to_pylist(),
            uris=uris.to_pylist(),
        )

    def _embeddings(self, column: pa.FixedSizeListArray | None, rows: int) -> tuple[Vectors, list[bool]]:
        """The embeddings as a matrix [rows, dimension], and which rows have one."""
        if column is None:
            return np.empty((rows, 0), np.float32), [False] * rows
        dimension = column.type.list_size
        if self.dimension is None:
            self.dimension = dimension
            self._versions.widen(dimension)
        if dimension != self.dimension:
            raise Corrupt(f"a batch of dimension {dimension} in a collection of dimension {self.dimension}")
        every = column.values.to_numpy(zero_copy_only=False)  # a copy only where rows are null
        matrix = every.reshape(-1, dimension)[column.offset : column.offset + rows]
        if column.null_count == 0:
            return matrix, [True] * rows
        return matrix, column.is_valid().to_pylist()

    def _is_new(self, operations: _Operations, below: Mapping[str, _Ref | None]) -> bool:
        """Whether every operation inserts a record of its own, so that they can be appended as columns. `below` has the
        base row of each id that the tail did not change, None for an id that has none.
        """
        return (
            0 < len(operations.ids) == len(below)  # no id is known, none is there twice
            and all(ref is None for ref in below.values())
            and all(operations.given)
            and _INSERTING.issuperset(operations.ops)
        )

    def _insert(self, operations: _Operations) -> None:
        """Does for all operations at once what `_apply_each` would do for each, all of them being insertions."""
        ids, positions, metadatas = operations.ids, operations.positions, map(new_metadata, operations.metadatas)
        rows = self._versions.extend(
            ids, operations.vectors, positions, operations.documents, list(metadatas), operations.uris
        )
        self._latest.update(zip(ids, rows, strict=True))

    def _apply_each(self, operations: _Operations, below: Mapping[str, _Ref | None]) -> None:
        """Applies one operation after the other: an operation may change what the operation before it made."""
        columns = zip(
            operations.ops,
            operations.ids,
            operations.positions.tolist(),
            operations.given,
            operations.documents,
            operations.metadatas,
            operations.uris,
            strict=True,
        )
        for i, (op, id_, position, has_vector, document, metadata, uri) in enumerate(columns):
            given = Given(operations.vectors[i] if has_vector else None, document, metadata, uri)
            self._apply_one(Op(op), id_, below.get(id_), given, position)

    def _apply_one(self, op: Op, id_: str, below: _Ref | None, given: Given, position: int) -> None:
        row = self._latest.get(id_)
        current: Record | None = None
        if row is not None:
            current = self._versions.record(row) if row != NO_ROW and self._versions.lives(row) else None
        elif below is not None:
            current = self.base.record(below)
        change, record = resolve(op, current, given, position)
        if change is Change.NOTHING:
            return
        if current is not None:
            if row is not None:
                self._versions.end(row, position)
            else:
                assert below is not None
                self._deletions[below[0]].add(below[1], id_, position + 1)
                self._latest[id_] = NO_ROW
        if record is not None:
            self._latest[id_] = self._versions.append(id_, record, position, NO_ROW if row is None else row)

    # ---- the base segments of a later manifest

    def rebased(self, base: BaseRecords, covers: int) -> Memtable:
        """The tail from `covers` on, over base segments that hold everything below; `covers` is at most `position`.

        It continues in the buffers of this memtable, to which nothing may be applied any more; reads of it may go on.
        Raises Corrupt when the base segments lack a record that was alive as of `covers`.
        """
        later = Memtable(base, self.dimension)
        later.position = self.position
        later._versions = self._versions.since(covers)
        later.bytes = self.bytes * later.rows // max(1, self.rows)
        # The records that base segments of `covers` have alive and the rest of the tail deletes, in that order.
        deaths = self._versions.deaths(covers)
        for deletions in self._deletions.values():
            deaths += deletions.after(covers)
        later._delete_below(sorted(deaths))
        later._latest.update(zip(later._versions.ids, range(later.rows), strict=True))
        return later

    def _delete_below(self, deaths: list[tuple[int, str]]) -> None:
        ids = [id_ for _, id_ in deaths]
        for (died, id_), ref in zip(deaths, self.base.find(ids), strict=True):
            if ref is None:
                raise Corrupt(f"the later base segments lack {id_!r}, which was alive until {died}")
            self._deletions[ref[0]].add(ref[1], id_, died)
            self._latest[id_] = NO_ROW

    # ---- reading as of a position

    def at(self, position: int) -> Tail:
        """The tail as of `position`; everything below must have been applied."""
        return self._versions.at(position)

    def find(self, ids: Sequence[str], tail: Tail) -> RowNumbers:
        """The row of `tail` that has each id alive, -1 where none has (a base segment may have it: `deleted_rows`)."""
        found = np.full(len(ids), NO_ROW, np.int64)
        for i, id_ in enumerate(ids):
            row = self._latest.get(id_, NO_ROW)
            while row >= tail.rows:  # born later than this read
                row = self._versions.before(row)
            if row >= 0 and tail.alive[row]:
                found[i] = row
        return found

    def deleted_rows(self, segment: int, position: int) -> RowNumbers:
        """Rows of a base segment that the tail deleted, as of `position`, in the order of their deletion.

        As of a later position the answer begins with this one.
        """
        deletions = self._deletions.get(segment)
        return np.empty(0, np.int64) if deletions is None else deletions.as_of(position)

    # ---- the whole tail, for the compactor

    def live_table(self) -> pa.Table:
        """The records of the tail that are alive at the end: `record_schema` without `digest`, in insertion order.

        While the dimension is unknown there are none, and the schema says 1 (Arrow has no vectors of width 0).
        """
        dimension = self.dimension or 1
        schema = record_schema(dimension)
        schema = schema.remove(schema.get_field_index("digest"))
        if self.dimension is None:
            return schema.empty_table()
        versions, live = self._versions, self._versions.living()
        rows: list[int] = live.tolist()
        vectors = pa.array(versions.vectors[live].reshape(-1), pa.float32())
        columns = {
            "id": [versions.ids[row] for row in rows],
            "inserted": versions.inserted[live],
            "written": versions.written[live],
            "embedding": pa.FixedSizeListArray.from_arrays(vectors, type=embedding_type(dimension)),
            "document": [versions.documents[row] for row in rows],
            "metadata": [versions.metadatas[row] for row in rows],
            "uri": [versions.uris[row] for row in rows],
        }
        return pa.table(columns, schema=schema)

    def deleted(self) -> dict[int, RowNumbers]:
        """The rows that the tail deleted of each base segment, at the end, ascending."""
        return {segment: np.sort(deletions.as_of(NEVER)) for segment, deletions in self._deletions.items()}

    @property
    def rows(self) -> int:
        """The number of rows of the tail, dead ones included."""
        return self._versions.size

    @property
    def vectors(self) -> Vectors:
        """The embeddings of all rows, float32 [rows, dimension]."""
        return self._versions.vectors

    def check(self) -> None:
        """Assert the invariants; for tests."""
        versions = self._versions
        versions.check(self.position)
        newest = {id_: row for row, id_ in enumerate(versions.ids)}
        assert newest == {id_: row for id_, row in self._latest.items() if row != NO_ROW}
        for deletions in self._deletions.values():
            rows = deletions.as_of(NEVER).tolist()
            assert len(set(rows)) == len(rows)
