"""The log's tail in memory, folded over a base of segments.

A *slot* holds one version of one record (`versions`). A record that the tail touches lives wholly in the tail; its row
in the base, if it had one, is *killed* (`kills`).

    operation at position p         slot                                   base
    inserts a record                new slot, born p + 1                   -
    merges into a slot's record     old slot dies p + 1, new one born p + 1    -
    merges into a base row          new slot born p + 1                    row killed, dies p + 1
    removes a slot's record         slot dies p + 1                        -
    removes a base row              -                                      row killed, dies p + 1

What an operation does to a record depends on the operations before it and not on where the record lies. So the slots
that are born above some position are the same, one by one, whatever the base: a tail over a later base is the end of
the tail over the earlier one (`rebased`).

A read as of position T (exclusive: everything below T is applied) sees exactly the slots with `born <= T < died`, and
the base rows whose kill, if any, has `died > T`. So T is all that a reader needs: what is applied later is born above
T or dies above T, and changes nothing that the reader looks at.

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
from shared.memtable.kills import Kills
from shared.memtable.versions import NEVER, NO_SLOT, Tail, Versions
from shared.records.materialize import Change, Given, Record, new_metadata, resolve
from shared.records.model import Op, embedding_type, record_schema
from shared.vectors.arrays import Positions, RowNumbers, Vectors

_INSERTING: Final = frozenset({Op.ADD, Op.UPSERT})
"""What inserts a record that is absent."""

_Ref = tuple[int, int]
"""Segment of the base, row in it."""


class Base(Protocol):
    """What lies below the tail. Knows nothing of the tail's kills."""

    def find(self, ids: Sequence[str]) -> Sequence[_Ref | None]:
        """(segment, row) of each id that has a live row, None for the others."""
        ...

    def record(self, ref: Any) -> Record:
        """The record at a reference that `find` gave."""
        ...


class _Operations(NamedTuple):
    """The columns of a batch, parallel; `given` says which rows have a vector."""

    ops: list[int]
    ids: list[str]
    positions: Positions
    vectors: Vectors
    given: list[bool]
    documents: list[str | None]
    metadatas: list[str | None]
    uris: list[str | None]


class Memtable:
    """See the module. `dimension` None: not known until the first batch with embeddings."""

    def __init__(self, base: Base, dimension: int | None) -> None:
        self.base = base
        self.dimension = dimension
        self.position = 0
        """Everything below is applied. Invariant: no slot is born, and none but NEVER dies, above it."""
        self.bytes = 0
        """About what the tail holds in memory."""

        self._versions = Versions(dimension)
        # Newest slot of every id that the tail touched, dead or alive; NO_SLOT when it only killed the base row.
        # Invariant: an id that is not here is as the base has it; the base row of one that is here is killed, if
        # there ever was one. So the base is asked at most once for an id that changes.
        self._latest: dict[str, int] = {}
        self._kills: defaultdict[int, Kills] = defaultdict(Kills)

    # ---- writing

    def apply(self, batch: pa.RecordBatch, first: int, end: int) -> None:
        """Fold in one log entry of the append at positions [first, end), of `shared.records.model.batch_schema`.
        Entries come in log order.

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
        vectors, given = self._embeddings(embeddings[0] if embeddings else None, batch.num_rows)
        return _Operations(
            ops=ops.to_pylist(),
            ids=ids.to_pylist(),
            positions=np.add(offsets.to_numpy(), first, dtype=np.int64),
            vectors=vectors,
            given=given,
            documents=documents.to_pylist(),
            metadatas=metadatas.to_pylist(),
            uris=uris.to_pylist(),
        )

    def _embeddings(self, column: pa.FixedSizeListArray | None, rows: int) -> tuple[Vectors, list[bool]]:
        """The embeddings as a matrix, and which rows have one."""
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
        """Whether every operation inserts a record of its own, so that they can be taken as columns. `below` has what
        the base has of the ids that the tail did not touch.
        """
        return (
            0 < len(operations.ids) == len(below)  # no id is known, none is there twice
            and all(ref is None for ref in below.values())
            and all(operations.given)
            and _INSERTING.issuperset(operations.ops)
        )

    def _insert(self, operations: _Operations) -> None:
        """What `resolve` says of an insertion, for all rows at once."""
        ids, positions, metadatas = operations.ids, operations.positions, map(new_metadata, operations.metadatas)
        slots = self._versions.extend(
            ids, operations.vectors, positions, operations.documents, list(metadatas), operations.uris
        )
        self._latest.update(zip(ids, slots, strict=True))

    def _apply_each(self, operations: _Operations, below: Mapping[str, _Ref | None]) -> None:
        """One operation after the other: an operation may meet what the one before it left."""
        rows = zip(
            operations.ops,
            operations.ids,
            operations.positions.tolist(),
            operations.given,
            operations.documents,
            operations.metadatas,
            operations.uris,
            strict=True,
        )
        for i, (op, id_, position, has_vector, document, metadata, uri) in enumerate(rows):
            brought = Given(operations.vectors[i] if has_vector else None, document, metadata, uri)
            self._apply_one(Op(op), id_, below.get(id_), brought, position)

    def _apply_one(self, op: Op, id_: str, below: _Ref | None, given: Given, position: int) -> None:
        slot = self._latest.get(id_)
        current: Record | None = None
        if slot is not None:
            current = self._versions.record(slot) if slot != NO_SLOT and self._versions.lives(slot) else None
        elif below is not None:
            current = self.base.record(below)
        change, record = resolve(op, current, given, position)
        if change is Change.NOTHING:
            return
        if current is not None:
            if slot is not None:
                self._versions.end(slot, position)
            else:
                assert below is not None
                self._kills[below[0]].add(below[1], id_, position + 1)
                self._latest[id_] = NO_SLOT
        if record is not None:
            self._latest[id_] = self._versions.append(id_, record, position, NO_SLOT if slot is None else slot)

    # ---- a later base

    def rebased(self, base: Base, covers: int) -> Memtable:
        """The tail from `covers` on over a base that holds everything below; `covers` is at most `position`.

        It goes on with the buffers of this one, so nothing may be applied to this one any more. Those who read it may
        go on. Raises Corrupt when the base has not what was alive at `covers`.
        """
        later = Memtable(base, self.dimension)
        later.position = self.position
        later._versions = self._versions.since(covers)
        later.bytes = self.bytes * later.slots // max(1, self.slots)
        # What a base at `covers` has alive and the rest of the tail kills, as it died.
        deaths = self._versions.deaths(covers)
        for kills in self._kills.values():
            deaths += kills.after(covers)
        later._kill_below(sorted(deaths))
        later._latest.update(zip(later._versions.ids, range(later.slots), strict=True))
        return later

    def _kill_below(self, deaths: list[tuple[int, str]]) -> None:
        ids = [id_ for _, id_ in deaths]
        for (died, id_), ref in zip(deaths, self.base.find(ids), strict=True):
            if ref is None:
                raise Corrupt(f"the later base lacks {id_!r}, which lived until {died}")
            self._kills[ref[0]].add(ref[1], id_, died)
            self._latest[id_] = NO_SLOT

    # ---- reading as of a position

    def at(self, position: int) -> Tail:
        """The tail as of `position`, which must have been applied."""
        return self._versions.at(position)

    def find(self, ids: Sequence[str], tail: Tail) -> RowNumbers:
        """The slot that `tail` sees of each id, -1 where there is none (the base may have it: see `killed_rows`)."""
        found = np.full(len(ids), NO_SLOT, np.int64)
        for i, id_ in enumerate(ids):
            slot = self._latest.get(id_, NO_SLOT)
            while slot >= tail.rows:  # born later than this read
                slot = self._versions.before(slot)
            if slot >= 0 and tail.alive[slot]:
                found[i] = slot
        return found

    def killed_rows(self, segment: int, position: int) -> RowNumbers:
        """Rows of a base segment that are dead as of `position`, in the order of their deaths.

        As of a later position the answer begins with this one.
        """
        kills = self._kills.get(segment)
        return np.empty(0, np.int64) if kills is None else kills.as_of(position)

    # ---- the whole tail, for the compactor

    def live_table(self) -> pa.Table:
        """What is alive at the end: `record_schema` without `digest`, in insertion order.

        While the dimension is unknown there is nothing, and the schema says 1 (Arrow has no vectors of width 0).
        """
        dimension = self.dimension or 1
        schema = record_schema(dimension)
        schema = schema.remove(schema.get_field_index("digest"))
        if self.dimension is None:
            return schema.empty_table()
        versions, live = self._versions, self._versions.living()
        slots: list[int] = live.tolist()
        vectors = pa.array(versions.vectors[live].reshape(-1), pa.float32())
        columns = {
            "id": [versions.ids[slot] for slot in slots],
            "inserted": versions.inserted[live],
            "written": versions.written[live],
            "embedding": pa.FixedSizeListArray.from_arrays(vectors, type=embedding_type(dimension)),
            "document": [versions.documents[slot] for slot in slots],
            "metadata": [versions.metadatas[slot] for slot in slots],
            "uri": [versions.uris[slot] for slot in slots],
        }
        return pa.table(columns, schema=schema)

    def killed(self) -> dict[int, RowNumbers]:
        """Rows of the base that are dead at the end, ascending, by segment."""
        return {segment: np.sort(kills.as_of(NEVER)) for segment, kills in self._kills.items()}

    @property
    def slots(self) -> int:
        return self._versions.size

    @property
    def vectors(self) -> Vectors:
        """Of all slots."""
        return self._versions.vectors

    def check(self) -> None:
        """Assert the invariants; for tests."""
        versions = self._versions
        versions.check(self.position)
        newest = {id_: slot for slot, id_ in enumerate(versions.ids)}
        assert newest == {id_: slot for id_, slot in self._latest.items() if slot != NO_SLOT}
        for kills in self._kills.values():
            rows = kills.as_of(NEVER).tolist()
            assert len(set(rows)) == len(rows)
