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
import numpy.typing as npt

from queryworker.parts import SegmentPart, TailPart, ViewPart
from queryworker.runs import TailIndex
from queryworker.tail_graphs import Stretch, TailGraphs
from queryworker.verdicts import Verdicts
from shared.errors import StaleRead
from shared.indexing import EVERYTHING, Indexing
from shared.log.batch import decode_batch
from shared.log.state import Entry, Pointer, after_position
from shared.memtable import Memtable, Tail
from shared.model import FIRST_POSITION, Space
from shared.segment.graph import GraphParams
from shared.segment.stack import SegmentStack

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class OpenManifest:
    """One manifest, opened; `pointer` is None for a shard that was never compacted."""

    pointer: Pointer | None
    stack: SegmentStack
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


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A shard as of one position, ready to be searched: a part for each segment, then those of the tail, of which the
    numbers `tail_starts` are the first slots.
    """

    position: int
    space: Space
    dimension: int | None
    parts: tuple[ViewPart, ...]
    stack: SegmentStack
    memtable: Memtable
    tail: Tail
    tail_starts: tuple[int, ...]

    def find(self, ids: Sequence[str]) -> list[npt.NDArray[np.int64]]:
        """Rows of the live records with these ids, per part, ascending."""
        wanted = list(dict.fromkeys(ids))
        rows: list[list[int]] = [[] for _ in self.parts]
        for ref in self.stack.find(wanted):
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
            self.origin = continued.origin + continued.memtable.slots - self.memtable.slots
            self.graphs.forget_before(self.origin)
        self._tombstones = [_alive(rows, dead) for rows, dead in _shapes(base.stack)]
        self._verdicts = [Verdicts(segment) for segment in base.stack.segments]
        self._ordered = [bool((np.diff(segment.inserted) > 0).all()) for segment in base.stack.segments]
        self._alive: dict[int, tuple[int, Mask]] = {}
        self._newest: tuple[tuple[Stretch, ...], Snapshot] | None = None

    def can_continue(self, base: OpenManifest) -> bool:
        """Whether a view of a later manifest may take over the tail of this one."""
        return not self.broken and self.base.covers <= base.covers <= self.position

    @property
    def bytes(self) -> int:
        """About what the view holds, mapped files included."""
        verdicts = sum(verdicts.bytes for verdicts in self._verdicts)
        return self.base.bytes + self.memtable.bytes + self.graphs.bytes + verdicts

    def apply(self, entries: Sequence[Entry]) -> None:
        """Fold in entries of whole appends, in log order. Readers notice nothing until `position` moves."""
        for entry in entries:
            self.memtable.apply(decode_batch(entry.payload), entry.first, entry.end)

    @property
    def index_due(self) -> bool:
        """Whether the tail has grown enough for `index_more`."""
        return self.graphs.due(self.origin, self.memtable.slots)

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
        if newest is not None and newest[0] is stretches and newest[1].position == position:
            return newest[1]
        tail = self.memtable.at(position)
        segments: list[ViewPart] = [
            SegmentPart(
                segment, self._verdicts[number], self._alive_rows(number, position), ordered=self._ordered[number]
            )
            for number, segment in enumerate(self.base.stack.segments)
        ]
        of_tail = self._tail_parts(tail, stretches)
        snapshot = Snapshot(
            position=position,
            space=self.base.space,
            dimension=self.memtable.dimension,
            parts=(*segments, *of_tail),
            stack=self.base.stack,
            memtable=self.memtable,
            tail=tail,
            tail_starts=tuple(part.start for part in of_tail),
        )
        if as_of is None:
            self._newest = (stretches, snapshot)
        return snapshot

    def _tail_parts(self, tail: Tail, stretches: Sequence[Stretch]) -> list[TailPart]:
        """A part for each stretch that the tail has as a whole, and one for the slots behind those."""
        parts: list[TailPart] = []
        begin = 0
        for stretch in stretches:
            start, end = max(begin, stretch.start - self.origin), stretch.stop - self.origin
            if end > tail.rows or end <= begin:
                continue
            if start > begin:  # slots that have no graph, or whose graphs went, since the newest view has not got them
                parts.append(TailPart(tail, self.index, begin, start))
            parts.append(TailPart(tail, self.index, start, end, stretch, self.origin))
            begin = end
        return [*parts, TailPart(tail, self.index, begin, tail.rows)]

    def _alive_rows(self, number: int, position: int) -> Mask | None:
        """The rows of a segment that are alive; None when all are. The newest mask is kept: kills only grow."""
        killed = self.memtable.killed_rows(number, position)
        if not len(killed):
            return self._tombstones[number]
        count, mask = self._alive.get(number, (0, None))
        if mask is None or count != len(killed):
            tombstones = self._tombstones[number]
            rows = self.base.stack.segments[number].rows
            mask = np.ones(rows, np.bool_) if tombstones is None else tombstones.copy()
            mask[killed] = False
            self._alive[number] = (len(killed), mask)
        return mask


def _shapes(stack: SegmentStack) -> list[tuple[int, npt.NDArray[np.uint32]]]:
    pairs = zip(stack.segments, stack.tombstones, strict=True)
    return [(segment.rows, np.asarray(dead.to_array(), np.uint32)) for segment, dead in pairs]


def _alive(rows: int, dead: npt.NDArray[np.uint32]) -> Mask | None:
    if not len(dead):
        return None
    mask = np.ones(rows, np.bool_)
    mask[dead] = False
    return mask
