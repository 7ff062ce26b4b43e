"""Neighbour graphs over the tail, so that searching it costs about as much however long it is.

The tail's slots are cut into *stretches* of up to STRETCH_ROWS, each with a graph; the newest slots have none yet and
are scanned. While a stretch is short of its full length its graph is replaced, STEP_ROWS slots later, by an extended
copy: a slot is inserted once, whatever the length of the tail, and copied a few times, which costs next to nothing.
Slots never change, so a graph is right for every snapshot; who lives is decided by the snapshot's own mask.

Places. Slots are counted from those of the first view of a shard on. A view that continues over a later base
(`Memtable.rebased`) begins at its *origin*, and all views of a shard share these graphs: no slot is inserted again
because a compaction took those before it.

    places      0        16384      32768   40960        48001
    stretches   [  full  )[  full   )[ grows )  no graph yet  )
    a view           ^ origin                                   its first stretch has slots that it does not

A compaction takes the tail from its beginning meanwhile, about as fast as this indexes it. Where much is to be indexed,
both from the beginning would be the same work twice: so here it begins in the middle, and the first half is scanned
until it is compacted.

Threads. One thread at a time builds (`grow`), another may `forget_before` meanwhile; any number read `stretches`, a
tuple that is replaced as a whole.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import Final

import numpy as np

from shared.segment.graph import Graph, GraphParams
from shared.vectors.arrays import RowNumbers, Vectors

STEP_ROWS: Final = 4096
"""A tail shorter than this is only scanned; how many slots one step of growing takes."""

STRETCH_ROWS: Final = 4 * STEP_ROWS
"""Longer ones would cost more to insert into and less to search: this is about where recall suffers from neither."""

HALVED_ROWS_MIN: Final = 4 * STRETCH_ROWS
"""A tail without any graph that is as long as this is indexed from its middle."""

EFFORT_SHARE: Final = 0.5
"""Of the collection's `ef_construction`: the graph is for minutes, and stretches are small."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """The graph of the slots at places [start, stop)."""

    start: int
    stop: int
    graph: Graph

    def search_from(self, place: int, queries: Vectors, k: int, threads: int) -> list[RowNumbers]:
        """About the `k` nearest of the slots from `place` on, for each query, counted from `place`."""
        skipped = place - self.start
        rows = self.stop - self.start
        found = self.graph.search(queries, math.ceil(k * rows / (rows - skipped)), threads)
        return [np.empty(0, np.int64) if some is None else some[some >= skipped] - skipped for some in found]


class TailGraphs:
    """See the module. `stretches` are ascending and do not overlap; gaps are slots that are only scanned, or that no
    view has any more.
    """

    def __init__(self, params: GraphParams) -> None:
        self._params = GraphParams(
            params.space, max(1, int(params.ef_construction * EFFORT_SHARE)), params.max_neighbors, threads=1
        )
        self.stretches: tuple[Stretch, ...] = ()
        self._replacing = threading.Lock()

    def indexed(self, origin: int) -> int:
        """Up to which slot of a view with this origin nothing is to be indexed any more."""
        return max(0, self.stretches[-1].stop - origin) if self.stretches else 0

    def due(self, origin: int, slots: int) -> bool:
        """Whether a view with so many slots has enough without a graph for a step."""
        return slots - self.indexed(origin) >= STEP_ROWS

    def grow(self, vectors: Vectors, origin: int) -> None:
        """Indexes the next STEP_ROWS of a view's slots, which have these vectors. For a thread that may take long."""
        begin = self.indexed(origin)
        if not begin and len(vectors) >= HALVED_ROWS_MIN:
            begin = len(vectors) // 2
        step = vectors[begin : begin + STEP_ROWS]
        last = self.stretches[-1] if self.stretches else None
        place = origin + begin
        if last is not None and last.start >= origin and last.stop - last.start < STRETCH_ROWS:
            grown = Stretch(last.start, place + len(step), last.graph.extended(step, threads=1))
        else:
            last = None
            grown = Stretch(place, place + len(step), Graph.of(step, self._params, STRETCH_ROWS))
        with self._replacing:
            self.stretches = (*(stretch for stretch in self.stretches if stretch is not last), grown)

    def forget_before(self, origin: int) -> None:
        """Lets go of graphs that no view from `origin` on can use."""
        with self._replacing:
            self.stretches = tuple(stretch for stretch in self.stretches if stretch.stop > origin)

    @property
    def bytes(self) -> int:
        """About what they take."""
        return sum(stretch.graph.bytes for stretch in self.stretches)
