"""Versions of records with the stretch of positions in which each lives.

A *slot* holds one version. Slots are append-only: an update writes a new slot and lets the old one die. A read as of
position T sees exactly the slots with `born <= T < died`.

Threads. One thread writes at a time; any number read, without a lock, as of a T below which everything was written
before they began. That holds because
* a slot's values are written before `size` counts it, and are never written again, but for `died`;
* `died` changes once, from NEVER to a value above every T in use: a reader takes the same decision from either;
* an array that is full is replaced by a larger copy; a reader that holds the old one misses only deaths above its T.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from shared.memtable.growing import Growing
from shared.records.materialize import Record
from shared.vectors.arrays import Mask, Positions, RowNumbers, Vectors

NEVER: Final = 2**63 - 1
"""`died` of what is alive."""

NO_SLOT: Final = -1


class Tail(NamedTuple):
    """The slots that a read as of `position` may look at: the first `rows`, since `born` ascends.

    `alive` says which of them it sees. The lists are longer than `rows`; look at nothing behind it.
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
    """See the module. Columns by slot.

    Invariant: for every slot below `size`, in all columns: born < died, written < born, inserted <= written; born
    ascends from slot to slot. Slots of one id are chained by `before`, newest first, with disjoint lives.
    """

    def __init__(self, dimension: int | None) -> None:
        self.size = 0
        self.ids: list[str] = []
        self.documents: list[str | None] = []
        self.metadatas: list[str | None] = []
        self.uris: list[str | None] = []
        self._vectors = Growing(np.float32, dimension or 0)
        self._inserted = Growing(np.int64)
        self._written = Growing(np.int64)
        self._born = Growing(np.int64)
        self._died = Growing(np.int64)
        self._before: dict[int, int] = {}

    # ---- writing

    def widen(self, dimension: int) -> None:
        """The dimension is known now. There is no slot yet: none comes without a vector."""
        self._vectors = Growing(np.float32, dimension)

    def extend(
        self,
        ids: Sequence[str],
        vectors: Vectors,
        positions: Positions,
        documents: Sequence[str | None],
        metadatas: Sequence[str | None],
        uris: Sequence[str | None],
    ) -> range:
        """New records, inserted at these positions; their slots."""
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
        """The version that an operation at `position` made, in place of that in the slot `before`; its slot."""
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
        if before != NO_SLOT:
            self._before[at] = before
        self.size += 1
        return at

    def end(self, slot: int, position: int) -> None:
        """The operation at `position` ended its life."""
        self._died.buffer[slot] = position + 1

    def since(self, covers: int) -> Versions:
        """Those that are born after `covers`, with the buffers of this one: nothing may be written to it any more."""
        first = self.first_born_after(covers)
        later = Versions(None)
        later.size = self.size - first
        for name in ("ids", "documents", "metadatas", "uris"):
            setattr(later, name, getattr(self, name)[first : self.size])
        for name in ("_vectors", "_inserted", "_written", "_born", "_died"):
            setattr(later, name, getattr(self, name).rest(first, self.size))
        later._before = {slot - first: before - first for slot, before in self._before.items() if before >= first}
        return later

    # ---- reading

    def at(self, position: int) -> Tail:
        """What a read as of `position` may look at."""
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
        size = self.size  # before the buffer, which holds at least this much
        return int(self._born.buffer[:size].searchsorted(position, side="right"))

    def lives(self, slot: int) -> bool:
        """Whether it is alive at the end."""
        return bool(self._died.buffer[slot] == NEVER)

    def before(self, slot: int) -> int:
        """The version before it, NO_SLOT where there is none."""
        return self._before.get(slot, NO_SLOT)

    def record(self, slot: int) -> Record:
        return Record(
            self._vectors.buffer[slot],
            self.documents[slot],
            self.metadatas[slot],
            self.uris[slot],
            int(self._inserted.buffer[slot]),
            int(self._written.buffer[slot]),
        )

    def deaths(self, covers: int) -> list[tuple[int, str]]:
        """(died, id) of those born up to `covers` that died after it."""
        died = self._died.buffer[: self.first_born_after(covers)]
        slots = np.flatnonzero((died > covers) & (died != NEVER))
        return [(int(died[slot]), self.ids[slot]) for slot in slots.tolist()]

    def living(self) -> RowNumbers:
        """The slots that are alive at the end, in the order of insertion."""
        live = np.flatnonzero(self._died.buffer[: self.size] == NEVER)
        return live[np.argsort(self._inserted.buffer[live], kind="stable")]

    @property
    def vectors(self) -> Vectors:
        """Of all slots."""
        size = self.size  # before the buffer
        return self._vectors.buffer[:size]

    @property
    def inserted(self) -> Positions:
        return self._inserted.buffer[: self.size]

    @property
    def written(self) -> Positions:
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
        for slot, before in self._before.items():
            assert self.ids[slot] == self.ids[before]
            assert died[before] <= born[slot]
