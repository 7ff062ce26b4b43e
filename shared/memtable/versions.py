"""Versions of records, each with the stretch of positions in which it is alive.

A row of the tail holds one version of one record. Rows are append-only: an update writes a new row and ends the old
one. A read as of position T sees exactly the rows with `born <= T < died`. (Multi-version concurrency control: a
reader's T takes the place of a lock.)

Threads. One thread writes at a time; any number read, without a lock, as of a T below which everything was written
before they began. That holds because

* a row's values are written before `size` counts it, and are never written again, but for `died`;
* `died` changes once, from NEVER to a value above every T in use: a reader takes the same decision from either;
* an array that is full is replaced by a larger copy; a reader that holds the old one misses only deaths above its T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from shared.memtable.growable_array import GrowableArray
from shared.records.materialize import Record
from shared.vectors.arrays import Mask, Positions, RowNumbers, Vectors

NEVER: Final = 2**63 - 1
"""`died` of a row that is alive at the end."""

NO_ROW: Final = -1
"""Instead of the number of a row, where there is none."""


class Tail(NamedTuple):
    """The rows of the tail that a read as of `position` may look at: the first `rows` of them, since `born` ascends.

    `alive` [rows] says which of them it sees, `vectors` is [rows, dimension], `inserted` and `written` are the
    positions at which each record was inserted and last changed. The lists are longer than `rows`: what stands behind
    is of later positions.
    """

    position: int
    rows: int
    alive: Mask
    vectors: Vectors
    inserted: Positions
    written: Positions
    ids: list[str]
    documents: list[str | None]
    metadatas: list[str | None]
    uris: list[str | None]


class Versions:
    """All versions that the tail holds, as columns by row number.

    Invariant: for every row below `size`, in all columns: born < died, written < born, inserted <= written; born
    ascends from row to row. The rows of one id are chained by `before`, newest first, with disjoint lives.
    """

    def __init__(self, dimension: int | None) -> None:
        self.size = 0
        self.ids: list[str] = []
        self.documents: list[str | None] = []
        self.metadatas: list[str | None] = []
        self.uris: list[str | None] = []
        self._vectors = GrowableArray(np.float32, dimension or 0)
        self._inserted = GrowableArray(np.int64)
        self._written = GrowableArray(np.int64)
        self._born = GrowableArray(np.int64)
        self._died = GrowableArray(np.int64)
        self._before: dict[int, int] = {}

    # ---- writing

    def widen(self, dimension: int) -> None:
        """Sets the dimension, known from now on. There is no row yet: none comes without a vector."""
        self._vectors = GrowableArray(np.float32, dimension)

    def extend(
        self,
        ids: Sequence[str],
        vectors: Vectors,
        positions: Positions,
        documents: Sequence[str | None],
        metadatas: Sequence[str | None],
        uris: Sequence[str | None],
    ) -> range:
        """Appends records that were inserted at these positions; the numbers of their rows. `vectors` is [n, d], all
        other arguments have n elements.
        """
        at, count = self.size, len(ids)
        self._vectors.write(at, vectors, count)
        self._inserted.write(at, positions, count)
        self._written.write(at, positions, count)
        self._born.write(at, positions + 1, count)
        self._died.write(at, NEVER, count)
        self.ids.extend(ids)
        self.documents.extend(documents)
        self.metadatas.extend(metadatas)
        self.uris.extend(uris)
        self.size += count
        return range(at, at + count)

    def append(self, id_: str, record: Record, position: int, before: int) -> int:
        """Appends the version that an operation at `position` made, in place of that in the row `before` (NO_ROW: there
        was none); the number of its row.
        """
        at = self.size
        self._vectors.write(at, record.embedding, 1)
        self._inserted.write(at, record.inserted, 1)
        self._written.write(at, record.written, 1)
        self._born.write(at, position + 1, 1)
        self._died.write(at, NEVER, 1)
        self.ids.append(id_)
        self.documents.append(record.document)
        self.metadatas.append(record.metadata)
        self.uris.append(record.uri)
        if before != NO_ROW:
            self._before[at] = before
        self.size += 1
        return at

    def end(self, row: int, position: int) -> None:
        """Notes that the operation at `position` deleted or replaced the version in this row."""
        self._died.buffer[row] = position + 1

    def since(self, covers: int) -> Versions:
        """The versions that are born after `covers`. They share the buffers of these, to which nothing may be written
        any more.
        """
        first = self.first_born_after(covers)
        later = Versions(None)
        later.size = self.size - first
        for name in ("ids", "documents", "metadatas", "uris"):
            setattr(later, name, getattr(self, name)[first : self.size])
        for name in ("_vectors", "_inserted", "_written", "_born", "_died"):
            setattr(later, name, getattr(self, name).rest(first, self.size))
        later._before = {row - first: before - first for row, before in self._before.items() if before >= first}
        return later

    # ---- reading

    def at(self, position: int) -> Tail:
        """The rows that a read as of `position` may look at."""
        rows = self.first_born_after(position)
        return Tail(
            position=position,
            rows=rows,
            alive=self._died.buffer[:rows] > position,
            vectors=self._vectors.buffer[:rows],
            inserted=self._inserted.buffer[:rows],
            written=self._written.buffer[:rows],
            ids=self.ids,
            documents=self.documents,
            metadatas=self.metadatas,
            uris=self.uris,
        )

    def first_born_after(self, position: int) -> int:
        """The number of the first row that a read as of `position` does not see; `size` when it may see all."""
        size = self.size  # before the buffer, which holds at least this much
        return int(self._born.buffer[:size].searchsorted(position, side="right"))

    def lives(self, row: int) -> bool:
        """Whether the version in this row is alive at the end."""
        return bool(self._died.buffer[row] == NEVER)

    def before(self, row: int) -> int:
        """The row with the version that the one in `row` replaced; NO_ROW where there is none."""
        return self._before.get(row, NO_ROW)

    def record(self, row: int) -> Record:
        """The version in this row; its embedding is a view of the column."""
        return Record(
            self._vectors.buffer[row],
            self.documents[row],
            self.metadatas[row],
            self.uris[row],
            int(self._inserted.buffer[row]),
            int(self._written.buffer[row]),
        )

    def deaths(self, covers: int) -> list[tuple[int, str]]:
        """(died, id) of the versions that were alive as of `covers` and died later."""
        died = self._died.buffer[: self.first_born_after(covers)]
        rows = np.flatnonzero((died > covers) & (died != NEVER))
        return [(int(died[row]), self.ids[row]) for row in rows.tolist()]

    def living(self) -> RowNumbers:
        """The rows that are alive at the end, in the order of insertion."""
        live = np.flatnonzero(self._died.buffer[: self.size] == NEVER)
        return live[np.argsort(self._inserted.buffer[live], kind="stable")]

    @property
    def vectors(self) -> Vectors:
        """The embeddings of all rows, float32 [size, dimension]."""
        size = self.size  # before the buffer
        return self._vectors.buffer[:size]

    @property
    def inserted(self) -> Positions:
        """The position at which the record of each row was inserted."""
        return self._inserted.buffer[: self.size]

    @property
    def written(self) -> Positions:
        """The position of the operation that made each row."""
        return self._written.buffer[: self.size]

    def check(self, position: int) -> None:
        """Assert the invariants, everything below `position` being applied; for tests."""
        columns = (self.ids, self.documents, self.metadatas, self.uris)
        assert all(len(column) == self.size for column in columns)
        born, died = self._born.buffer[: self.size], self._died.buffer[: self.size]
        assert bool((born < died).all())
        assert bool((self.inserted <= self.written).all())
        assert bool((self.written < born).all())
        assert bool((np.diff(born) >= 0).all())
        assert bool((died[died != NEVER] <= position).all())
        assert bool((born <= position).all())
        for row, before in self._before.items():
            assert self.ids[row] == self.ids[before]
            assert died[before] <= born[row]
