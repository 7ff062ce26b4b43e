"""What a worker holds of one shard: the segments of one manifest, and the log's tail folded over them.

    base      manifest with its segments and tombstones: everything below `covers`
    memtable  every operation in [covers, position)
    last      id of the newest stream entry applied; before the first one, the place in the stream where the manifest
    ends

A view only moves forward, and keeps every version since `covers`: a read as of any position in [covers, position] is a
mask (see `shared.memtable`). A later manifest means another view, which continues the tail of this one where it can.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from queryworker.view.parts import BaseParts, TailPart, ViewPart, tail_parts
from queryworker.view.tail_graphs import Stretch, TailGraphs
from queryworker.view.tail_index import TailIndex
from shared.errors import StaleRead
from shared.log.batch import decode_batch
from shared.log.state import Entry, Pointer, after_position
from shared.memtable.memtable import Memtable
from shared.memtable.versions import Tail
from shared.process.lazy import lazy
from shared.records.indexing import EVERYTHING, Indexing
from shared.records.model import FIRST_POSITION
from shared.segment.graph import GraphParams
from shared.segment.segment_set import SegmentSet
from shared.vectors.arrays import RowNumbers
from shared.vectors.space import Space


@dataclass(frozen=True, slots=True)
class OpenManifest:
    """One manifest, opened; `pointer` is None for a shard that was never compacted."""

    pointer: Pointer | None
    stack: SegmentSet
    dimension: int | None
    graph: GraphParams
    bytes: int
    indexing: Indexing = EVERYTHING

    @property
    def space(self) -> Space:
        return self.graph.space

    @property
    def covers(self) -> int:
        return self.pointer.covers if self.pointer else FIRST_POSITION


@dataclass(frozen=True, eq=False)
class Snapshot:
    """A shard as of one position. Its parts are made when they are asked for: a count needs none."""

    position: int
    space: Space
    dimension: int | None
    base: BaseParts
    memtable: Memtable
    tail: Tail
    index: TailIndex
    stretches: Sequence[Stretch]
    origin: int

    @lazy
    def living(self) -> int:
        """How many records there are."""
        stack = self.base.stack
        killed = sum(len(self.memtable.deleted_rows(number, self.position)) for number in range(len(stack.segments)))
        return stack.live_rows - killed + int(np.count_nonzero(self.tail.alive))

    @lazy
    def parts(self) -> tuple[ViewPart, ...]:
        """One for each segment, then those of the tail."""
        return (*self.base.at(self.memtable, self.position), *self._tail_parts)

    @lazy
    def tail_starts(self) -> tuple[int, ...]:
        """The first slots of the tail's parts."""
        return tuple(part.start for part in self._tail_parts)

    @lazy
    def _tail_parts(self) -> list[TailPart]:
        return tail_parts(self.tail, self.index, self.stretches, self.origin)

    def find(self, ids: Sequence[str]) -> list[RowNumbers]:
        """Rows of the live records with these ids, per part, ascending."""
        wanted = list(dict.fromkeys(ids))
        rows: list[list[int]] = [[] for _ in self.parts]
        for ref in self.base.stack.find(wanted):
            if ref is not None and self.parts[ref.segment].lives(ref.row):
                rows[ref.segment].append(ref.row)
        slots = self.memtable.find(wanted, self.tail)
        for slot in slots[slots >= 0].tolist():
            stretch = bisect_right(self.tail_starts, slot) - 1
            rows[stretch - len(self.tail_starts)].append(slot - self.tail_starts[stretch])
        return [np.array(sorted(part), np.int64) for part in rows]


class ShardView:
    """See the module. `apply` is called by one thread at a time, and so is `index_more`; `at` by any."""

    def __init__(self, base: OpenManifest, continued: ShardView | None = None) -> None:
        """`continued` is a view that has everything that the base covers: its tail after that goes on here, and nothing
        may be applied to it any more.
        """
        self.base = base
        self.position = base.covers
        """Every operation below is in the view. Moved by the event loop alone, after the operations are applied."""
        self.last = after_position(base.covers)
        self.broken = False
        """Whether the log was seen not to continue what the view has."""
        self.index = TailIndex(base.indexing)
        if continued is None:
            self.memtable = Memtable(base.stack, base.dimension)
            self.graphs = TailGraphs(base.graph)
            self.origin = 0
            """Place of the tail's first slot in `graphs`."""
        else:
            self.position, self.last = continued.position, continued.last
            self.memtable = continued.memtable.rebased(base.stack, base.covers)
            self.graphs = continued.graphs
            self.origin = continued.origin + continued.memtable.rows - self.memtable.rows
            self.graphs.forget_before(self.origin)
        self._parts = BaseParts(base.stack)
        self._newest: Snapshot | None = None

    def can_continue(self, base: OpenManifest) -> bool:
        """Whether a view of a later manifest may take over the tail of this one."""
        return not self.broken and self.base.covers <= base.covers <= self.position

    @property
    def bytes(self) -> int:
        """About what the view holds, mapped files included."""
        return self.base.bytes + self.memtable.bytes + self.graphs.bytes + self._parts.bytes

    def apply(self, entries: Sequence[Entry]) -> None:
        """Fold in entries of whole appends, in log order. Readers notice nothing until `position` moves."""
        for entry in entries:
            self.memtable.apply(decode_batch(entry.payload), entry.first, entry.end)

    @property
    def index_due(self) -> bool:
        """Whether the tail has grown enough for `index_more`."""
        return self.graphs.due(self.origin, self.memtable.rows)

    def index_more(self) -> None:
        """Index the next stretch of the tail. Takes a while; readers notice nothing until it is done."""
        self.graphs.grow(self.memtable.vectors, self.origin)

    def at(self, as_of: int | None = None) -> Snapshot:
        """The shard as of a position, by default the newest; StaleRead where the view does not reach."""
        position = self.position if as_of is None else as_of
        if not self.base.covers <= position <= self.position:
            raise StaleRead(f"position {position} is not in [{self.base.covers}, {self.position}]; read again")
        stretches = self.graphs.stretches
        newest = self._newest  # between two writes all reads are as of the same position
        if newest is not None and newest.stretches is stretches and newest.position == position:
            return newest
        snapshot = Snapshot(
            position=position,
            space=self.base.space,
            dimension=self.memtable.dimension,
            base=self._parts,
            memtable=self.memtable,
            tail=self.memtable.at(position),
            index=self.index,
            stretches=stretches,
            origin=self.origin,
        )
        if as_of is None:
            self._newest = snapshot
        return snapshot
