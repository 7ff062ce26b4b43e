"""The log's tail in memory, folded over a base of segments.

A *slot* holds one version of one record. Slots are append-only: an update writes a new slot and lets the old one die.
A record that the tail touches lives wholly in the tail; its row in the base, if it had one, is *killed*.

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
began. That holds because
* a slot's values are written before `_size` counts it, and are never written again, but for `died`;
* `died` changes once, from NEVER to a value above every T in use: a reader takes the same decision from either;
* an array that is full is replaced by a larger copy; a reader that holds the old one misses only deaths above its T.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from shared.errors import Corrupt
from shared.materialize import Change, Given, Record, Vector, new_metadata, resolve
from shared.model import Op, embedding_type, record_schema

NEVER: Final = 2**63 - 1
"""`died` of what is alive."""

_NO_SLOT: Final = -1
_ROWS_FIRST: Final = 256

Positions = npt.NDArray[np.int64]
Rows = npt.NDArray[np.int64]

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


class _Growing:
    """A numpy array that is appended to; doubles when it is full, leaving the old buffer to whoever holds it."""

    def __init__(self, dtype: npt.DTypeLike, width: int | None = None) -> None:
        self._shape = () if width is None else (width,)
        self.buffer: npt.NDArray[Any] = np.empty((0, *self._shape), dtype)

    def write(self, at: int, values: Any, count: int) -> None:
        """`values` into the rows [at, at + count)."""
        if at + count > len(self.buffer):
            rows = max(_ROWS_FIRST, 2 * len(self.buffer), at + count)
            grown = np.empty((rows, *self._shape), self.buffer.dtype)
            grown[:at] = self.buffer[:at]
            self.buffer = grown
        self.buffer[at : at + count] = values

    def continue_from(self, other: _Growing, begin: int, end: int) -> None:
        """The rows [begin, end) of another one, in its own memory unless most of that would be held for nothing."""
        rest = other.buffer[begin:]
        self._shape = other._shape
        self.buffer = rest if 2 * (end - begin) >= len(other.buffer) else rest[: end - begin].copy()


class _Kills:
    """Rows of one segment that the tail killed, in the order of their deaths."""

    def __init__(self) -> None:
        self.rows = _Growing(np.int64)
        self.died = _Growing(np.int64)  # ascending
        self.ids: list[str] = []
        self.size = 0

    def add(self, row: int, id_: str, died: int) -> None:
        self.rows.write(self.size, row, 1)
        self.died.write(self.size, died, 1)
        self.ids.append(id_)
        self.size += 1

    def after(self, position: int) -> list[tuple[int, str]]:
        """(died, id) of the rows that are alive as of `position`."""
        first = int(np.searchsorted(self.died.buffer[: self.size], position, side="right"))
        return list(zip(self.died.buffer[first : self.size].tolist(), self.ids[first:], strict=True))

    def as_of(self, position: int) -> Rows:
        size = self.size  # first: the buffers hold at least this much
        died = self.died.buffer[:size]
        rows: Rows = self.rows.buffer[: int(np.searchsorted(died, position, side="right"))]
        return rows


class _Operations(NamedTuple):
    """The columns of a batch, parallel; `given` says which rows have a vector."""

    ops: npt.NDArray[np.uint8]
    ids: list[str]
    positions: Positions
    vectors: Vector
    given: npt.NDArray[np.bool_]
    documents: list[str | None]
    metadatas: list[str | None]
    uris: list[str | None]


class Tail(NamedTuple):
    """The slots that a read as of `position` may look at: the first `rows`, since `born` ascends.

    `alive` says which of them it sees. The lists are longer than `rows`; look at nothing behind it.
    """

    position: int
    rows: int
    alive: npt.NDArray[np.bool_]
    vectors: npt.NDArray[np.float32]
    inserted: Positions
    written: Positions
    ids: list[str]
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

        # Invariant: for every slot below _size, in all columns: born < died, written < born, inserted <= written;
        # born ascends from slot to slot. Slots of one id are chained by _previous (where there is one before), newest
        # first, with disjoint lives.
        self._size = 0
        self._ids: list[str] = []
        self._documents: list[str | None] = []
        self._metadatas: list[str | None] = []
        self._uris: list[str | None] = []
        self._previous: dict[int, int] = {}
        self._vectors = _Growing(np.float32, dimension or 0)
        self._inserted = _Growing(np.int64)
        self._written = _Growing(np.int64)
        self._born = _Growing(np.int64)
        self._died = _Growing(np.int64)

        # Newest slot of every id that the tail touched, dead or alive; _NO_SLOT when it only killed the base row.
        # Invariant: an id that is not here is as the base has it; the base row of one that is here is killed, if
        # there ever was one. So the base is asked at most once for an id that changes.
        self._latest: dict[str, int] = {}
        self._kills: dict[int, _Kills] = {}

    # ---- writing

    def apply(self, batch: pa.RecordBatch, first: int, end: int) -> None:
        """Fold in one log entry of the append at positions [first, end), of `shared.model.batch_schema`. Entries come
        in log order.

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
            ops=ops.to_numpy(),
            ids=ids.to_pylist(),
            positions=offsets.to_numpy().astype(np.int64) + first,
            vectors=vectors,
            given=given,
            documents=documents.to_pylist(),
            metadatas=metadatas.to_pylist(),
            uris=uris.to_pylist(),
        )

    def _embeddings(self, column: pa.FixedSizeListArray | None, rows: int) -> tuple[Vector, npt.NDArray[np.bool_]]:
        """The embeddings as a matrix, and which rows have one."""
        if column is None:
            return np.empty((rows, 0), np.float32), np.zeros(rows, np.bool_)
        dimension = column.type.list_size
        if self.dimension is None:
            self.dimension = dimension
            self._vectors = _Growing(np.float32, dimension)
        if dimension != self.dimension:
            raise Corrupt(f"a batch of dimension {dimension} in a collection of dimension {self.dimension}")
        flat = column.values.slice(column.offset * dimension, rows * dimension)
        matrix = flat.to_numpy(zero_copy_only=False).reshape(-1, dimension)  # a copy only where rows are null
        if column.null_count == 0:
            return matrix, np.ones(rows, np.bool_)
        return matrix, column.is_valid().to_numpy(zero_copy_only=False)

    def _is_new(self, operations: _Operations, below: Mapping[str, _Ref | None]) -> bool:
        """Whether every operation inserts a record of its own, so that they can be taken as columns. `below` has what
        the base has of the ids that the tail did not touch.
        """
        return (
            0 < len(operations.ids) == len(below)  # no id is known, none is there twice
            and all(ref is None for ref in below.values())
            and bool(operations.given.all())
            and bool(((operations.ops == Op.ADD) | (operations.ops == Op.UPSERT)).all())
        )

    def _insert(self, operations: _Operations) -> None:
        """What `resolve` says of an insertion, for all rows at once."""
        ids, positions = operations.ids, operations.positions
        count, at = len(ids), self._size
        self._vectors.write(at, operations.vectors, count)
        self._inserted.write(at, positions, count)
        self._written.write(at, positions, count)
        self._born.write(at, positions + 1, count)
        self._died.write(at, NEVER, count)
        self._ids.extend(ids)
        self._documents.extend(operations.documents)
        self._metadatas.extend(map(new_metadata, operations.metadatas))
        self._uris.extend(operations.uris)
        self._size += count
        self._latest.update(zip(ids, range(at, at + count), strict=True))

    def _apply_each(self, operations: _Operations, below: Mapping[str, _Ref | None]) -> None:
        """One operation after the other: an operation may meet what the one before it left."""
        rows = zip(
            operations.ops.tolist(),
            operations.ids,
            operations.positions.tolist(),
            operations.given.tolist(),
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
            current = self._record(slot) if slot != _NO_SLOT and self._died.buffer[slot] == NEVER else None
        elif below is not None:
            current = self.base.record(below)
        change, record = resolve(op, current, given, position)
        if change is Change.NOTHING:
            return
        if current is not None:
            if slot is not None:
                self._died.buffer[slot] = position + 1
            else:
                assert below is not None
                self._kills.setdefault(below[0], _Kills()).add(below[1], id_, position + 1)
                self._latest[id_] = _NO_SLOT
        if record is not None:
            self._append(id_, record, position, _NO_SLOT if slot is None else slot)

    def _append(self, id_: str, record: Record, position: int, previous: int) -> None:
        at = self._size
        self._vectors.write(at, record.embedding, 1)
        self._inserted.write(at, record.inserted, 1)
        self._written.write(at, record.written, 1)
        self._born.write(at, position + 1, 1)
        self._died.write(at, NEVER, 1)
        self._ids.append(id_)
        self._documents.append(record.document)
        self._metadatas.append(record.metadata)
        self._uris.append(record.uri)
        if previous != _NO_SLOT:
            self._previous[at] = previous
        self._size += 1
        self._latest[id_] = at

    def _record(self, slot: int) -> Record:
        return Record(
            self._vectors.buffer[slot],
            self._documents[slot],
            self._metadatas[slot],
            self._uris[slot],
            int(self._inserted.buffer[slot]),
            int(self._written.buffer[slot]),
        )

    # ---- a later base

    def rebased(self, base: Base, covers: int) -> Memtable:
        """The tail from `covers` on over a base that holds everything below; `covers` is at most `position`.

        It goes on with the buffers of this one, so nothing may be applied to this one any more. Those who read it may
        go on. Raises Corrupt when the base has not what was alive at `covers`.
        """
        later = Memtable(base, self.dimension)
        first = int(np.searchsorted(self._born.buffer[: self._size], covers, side="right"))
        later.position = self.position
        later._size = self._size - first
        later.bytes = self.bytes * later._size // max(1, self._size)
        for name in ("_ids", "_documents", "_metadatas", "_uris"):
            setattr(later, name, getattr(self, name)[first : self._size])
        for name in ("_vectors", "_inserted", "_written", "_born", "_died"):
            getattr(later, name).continue_from(getattr(self, name), first, self._size)
        later._previous = {slot - first: before - first for slot, before in self._previous.items() if before >= first}
        later._kill_below(self._deaths_below(first, covers))
        later._latest.update(zip(later._ids, range(later._size), strict=True))
        return later

    def _deaths_below(self, first: int, covers: int) -> list[tuple[int, str]]:
        """(died, id), ascending, of what a base at `covers` has alive and the tail from slot `first` on kills."""
        died = self._died.buffer[:first]
        slots = np.flatnonzero((died > covers) & (died != NEVER))
        deaths = [(int(died[slot]), self._ids[slot]) for slot in slots.tolist()]
        for kills in self._kills.values():
            deaths += kills.after(covers)
        return sorted(deaths)

    def _kill_below(self, deaths: list[tuple[int, str]]) -> None:
        ids = [id_ for _, id_ in deaths]
        for (died, id_), ref in zip(deaths, self.base.find(ids), strict=True):
            if ref is None:
                raise Corrupt(f"the later base lacks {id_!r}, which lived until {died}")
            self._kills.setdefault(ref[0], _Kills()).add(ref[1], id_, died)
            self._latest[id_] = _NO_SLOT

    # ---- reading as of a position

    def at(self, position: int) -> Tail:
        """The tail as of `position`, which must have been applied."""
        size = self._size  # before the buffers: each holds at least this much
        born = self._born.buffer[:size]
        rows = int(np.searchsorted(born, position, side="right"))
        return Tail(
            position=position,
            rows=rows,
            alive=self._died.buffer[:rows] > position,
            vectors=self._vectors.buffer[:rows],
            inserted=self._inserted.buffer[:rows],
            written=self._written.buffer[:rows],
            ids=self._ids,
            documents=self._documents,
            metadatas=self._metadatas,
            uris=self._uris,
        )

    def find(self, ids: Sequence[str], tail: Tail) -> Rows:
        """The slot that `tail` sees of each id, -1 where there is none (the base may have it: see `killed_rows`)."""
        found = np.full(len(ids), _NO_SLOT, np.int64)
        for i, id_ in enumerate(ids):
            slot = self._latest.get(id_, _NO_SLOT)
            while slot >= tail.rows:  # born later than this read
                slot = self._previous.get(slot, _NO_SLOT)
            if slot >= 0 and tail.alive[slot]:
                found[i] = slot
        return found

    def killed_rows(self, segment: int, position: int) -> Rows:
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
        live = np.flatnonzero(self._died.buffer[: self._size] == NEVER)
        live = live[np.argsort(self._inserted.buffer[live], kind="stable")]
        slots: list[int] = live.tolist()
        vectors = pa.array(self._vectors.buffer[live].reshape(-1), pa.float32())
        columns = {
            "id": [self._ids[slot] for slot in slots],
            "inserted": self._inserted.buffer[live],
            "written": self._written.buffer[live],
            "embedding": pa.FixedSizeListArray.from_arrays(vectors, type=embedding_type(dimension)),
            "document": [self._documents[slot] for slot in slots],
            "metadata": [self._metadatas[slot] for slot in slots],
            "uri": [self._uris[slot] for slot in slots],
        }
        return pa.table(columns, schema=schema)

    def killed(self) -> dict[int, Rows]:
        """Rows of the base that are dead at the end, ascending, by segment."""
        return {segment: np.sort(kills.as_of(NEVER)) for segment, kills in self._kills.items()}

    @property
    def slots(self) -> int:
        return self._size

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """Of all slots."""
        size = self._size  # before the buffer
        return self._vectors.buffer[:size]

    def check(self) -> None:
        """Assert the invariants; for tests."""
        size = self._size
        columns = (self._ids, self._documents, self._metadatas, self._uris)
        assert all(len(column) == size for column in columns)
        inserted, written = self._inserted.buffer[:size], self._written.buffer[:size]
        born, died = self._born.buffer[:size], self._died.buffer[:size]
        assert bool((born < died).all())
        assert bool((inserted <= written).all())
        assert bool((written < born).all())
        assert bool((np.diff(born) >= 0).all())
        assert bool((died[died != NEVER] <= self.position).all())
        assert bool((born <= self.position).all())
        for id_, newest in self._latest.items():
            slot, later = newest, NEVER
            while slot != _NO_SLOT:
                assert self._ids[slot] == id_
                assert died[slot] <= later
                slot, later = self._previous.get(slot, _NO_SLOT), int(born[slot])
        killed = [set(kills.rows.buffer[: kills.size].tolist()) for kills in self._kills.values()]
        assert sum(len(rows) for rows in killed) == sum(kills.size for kills in self._kills.values())
