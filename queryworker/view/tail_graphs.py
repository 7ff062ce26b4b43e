"""Neighbour graphs over the log's tail, so that searching the tail costs about as much however long it is.

The rows of the tail are divided into ranges of up to GRAPH_ROWS_MAX, each with a graph; the newest rows have none yet
and are scanned. While a range is short of its full length its graph is replaced, STEP_ROWS rows later, by an extended
copy: a row is inserted once, whatever the length of the tail, and copied a few times, which costs next to nothing.
Vectors of the tail never change, so a graph is right for every read view; the mask of the read view says which rows are
alive.

Ordinals. Rows are numbered from row 0 of the first view of the shard on. A view that continues over a later manifest
(`Memtable.rebased`) begins at a later ordinal, and all views of a shard share these graphs: no row is inserted again
because a compaction took those before it.

```text
ordinals    0           16384        32768      40960           48001
graphs      [   full    )[   full    )[  grows  )  no graph yet   )
a view             ^ its first row: the first graph begins with rows that the view does not have
```

A compaction takes rows from the beginning of the tail meanwhile, about as fast as graphs are built here. Where much is
to be indexed, both would do the same work twice if both began at the beginning. So a tail that is long and has no graph
is indexed from its middle on, and its first half is scanned until it is compacted.

Threads. One thread at a time builds (`build_step`), another may call `drop_before` meanwhile; any number read
`graphs`, a tuple that is replaced as a whole.
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
"""Number of rows that one step of building inserts. A tail shorter than this is only scanned."""

GRAPH_ROWS_MAX: Final = 4 * STEP_ROWS
"""Rows of one graph. Larger graphs would cost more to insert into, smaller ones more to search: this is about where
recall suffers from neither.
"""

FROM_MIDDLE_ROWS_MIN: Final = 4 * GRAPH_ROWS_MAX
"""A tail without any graph that is at least as long as this is indexed from its middle on."""

EF_CONSTRUCTION_SHARE: Final = 0.5
"""Share of the collection's `ef_construction` that is used: the graphs live for minutes, and are small."""


@dataclass(frozen=True, slots=True)
class TailGraph:
    """The graph of the rows with ordinals [start, stop)."""

    start: int
    stop: int
    graph: Graph

    def search_from(self, first_ordinal: int, queries: Vectors, k: int, threads: int) -> list[RowNumbers]:
        """About the `k` nearest, for each query, of the rows from `first_ordinal` on, counted from there."""
        skipped = first_ordinal - self.start
        rows = self.stop - self.start
        found = self.graph.search(queries, math.ceil(k * rows / (rows - skipped)), threads)
        return [np.empty(0, np.int64) if hits is None else hits[hits >= skipped] - skipped for hits in found]


class TailGraphs:
    """The graphs over the tail of one shard, shared by all of its views.

    `graphs` ascend and do not overlap; in the gaps between them are rows that are only scanned, or that no view has any
    more.
    """

    def __init__(self, params: GraphParams) -> None:
        """`params` are the collection's."""
        self._params = GraphParams(
            params.space, max(1, int(params.ef_construction * EF_CONSTRUCTION_SHARE)), params.max_neighbors, threads=1
        )
        self.graphs: tuple[TailGraph, ...] = ()
        self._replacing = threading.Lock()

    def indexed(self, first_ordinal: int) -> int:
        """How many of the first rows need no graph any more, in a view whose row 0 has this ordinal."""
        return max(0, self.graphs[-1].stop - first_ordinal) if self.graphs else 0

    def step_due(self, first_ordinal: int, rows: int) -> bool:
        """Whether a view with so many rows has enough rows without a graph for a step of building."""
        return rows - self.indexed(first_ordinal) >= STEP_ROWS

    def build_step(self, vectors: Vectors, first_ordinal: int) -> None:
        """Insert the next STEP_ROWS rows of a view, given the vectors of all of its rows. Takes seconds: not for the
        event loop.
        """
        begin = self.indexed(first_ordinal)
        if not begin and len(vectors) >= FROM_MIDDLE_ROWS_MIN:
            begin = len(vectors) // 2
        step = vectors[begin : begin + STEP_ROWS]
        last = self.graphs[-1] if self.graphs else None
        ordinal = first_ordinal + begin
        if last is not None and last.start >= first_ordinal and last.stop - last.start < GRAPH_ROWS_MAX:
            grown = TailGraph(last.start, ordinal + len(step), last.graph.extended(step, threads=1))
        else:
            last = None
            grown = TailGraph(ordinal, ordinal + len(step), Graph.of(step, self._params, GRAPH_ROWS_MAX))
        with self._replacing:
            self.graphs = (*(graph for graph in self.graphs if graph is not last), grown)

    def drop_before(self, first_ordinal: int) -> None:
        """Let go of graphs all of whose rows are before this ordinal."""
        with self._replacing:
            self.graphs = tuple(graph for graph in self.graphs if graph.stop > first_ordinal)

    @property
    def bytes(self) -> int:
        """About how much memory the graphs take."""
        return sum(graph.graph.bytes for graph in self.graphs)
