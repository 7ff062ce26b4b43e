"""The log's tail as parts of read views: one part for each graph over it, and one for each stretch without a graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from queryworker.filter.result import FilterResult, concatenated
from queryworker.view.part import GraphSearcher, IndexedRange
from queryworker.view.tail_graphs import TailGraph
from queryworker.view.tail_index import TailBlock, TailIndex
from shared.memtable.versions import Tail
from shared.records.where import Where
from shared.vectors.arrays import Mask, RowNumbers, SquaredNorms, Vectors
from shared.vectors.codes import Codes


class _TailGraphSearcher:
    """Searches the graph for rows counted from `first_ordinal` on, which is not before the graph's own first row."""

    dimension_share = 1.0

    def __init__(self, graph: TailGraph, first_ordinal: int) -> None:
        self._graph = graph
        self._first_ordinal = first_ordinal

    def out_of_distribution(self, queries: Vectors) -> Mask:
        return np.zeros(len(queries), np.bool_)

    def search(self, queries: Vectors, k: int, threads: int = 1) -> list[RowNumbers]:
        return self._graph.search_from(self._first_ordinal, queries, k, threads)


class TailPart:
    """The rows [start, stop) of the tail, counted from 0 in the part: a `queryworker.view.part.ViewPart`."""

    def __init__(
        self,
        tail: Tail,
        index: TailIndex,
        start: int,
        stop: int,
        graph: TailGraph | None = None,
        first_ordinal: int = 0,
    ) -> None:
        """`graph`, if any, is over exactly these rows, but that it may begin with rows which the view does not have any
        more. `first_ordinal` is the ordinal (`queryworker.view.tail_graphs`) of the tail's row 0.
        """
        self.name = "tail"
        self.start = start
        self.rows = stop - start
        self.graph: GraphSearcher | None = _TailGraphSearcher(graph, first_ordinal + start) if graph else None
        alive = tail.alive[start:stop]
        self.live_rows = int(np.count_nonzero(alive))
        self.alive = None if self.live_rows == self.rows else alive
        self.vectors = tail.vectors[start:stop]
        self.codes: Codes | None = None
        self.inserted = tail.inserted[start:stop]
        self.written = tail.written[start:stop]
        self.in_insertion_order = False
        self._stop = stop
        self._tail = tail
        self._index = index

    def is_alive(self, row: int) -> bool:
        return bool(self._tail.alive[self.start + row])

    def filter(self, where: Where) -> FilterResult:
        return concatenated(
            [
                (in_part.start, block.filters.evaluate(where).slice(in_block.start, in_block.stop))
                for block, in_part, in_block in self._blocks()
            ]
        )

    def indexed_ranges(self) -> Sequence[IndexedRange]:
        return list(itertools.starmap(IndexedRange, self._blocks()))

    def _blocks(self) -> Iterator[tuple[TailBlock, slice, slice]]:
        """The blocks that have rows of the part: which rows of the part, and which of the block. A block that was made
        for a longer tail may reach into the next ones: it is used as far as it goes.
        """
        begin = self.start
        for block in self._index.blocks(self._tail):
            end = min(block.stop, self._stop)
            if begin < end:
                in_part = slice(begin - self.start, end - self.start)
                yield block, in_part, slice(begin - block.start, end - block.start)
                begin = end

    def norms(self, *, compute: bool) -> SquaredNorms | None:
        return self._index.norms(self._tail)[self.start : self._stop]

    def texts(self, column: str, rows: RowNumbers) -> list[str | None]:
        tail = self._tail
        values: dict[str, list[str | None] | list[str]] = {
            "id": tail.ids,
            "document": tail.documents,
            "metadata": tail.metadatas,
            "uri": tail.uris,
        }
        return list(map(values[column].__getitem__, (rows + self.start).tolist()))

    def text_bytes(self, column: str, rows: RowNumbers) -> int:
        return sum(map(len, filter(None, self.texts(column, rows))))


def tail_parts(tail: Tail, index: TailIndex, graphs: Sequence[TailGraph], first_ordinal: int) -> list[TailPart]:
    """The tail cut into parts, ascending: one for each graph whose rows the tail has to their end, and one for each
    stretch of rows between, before and behind them. `first_ordinal` is the ordinal of the tail's row 0.
    """
    parts: list[TailPart] = []
    begin = 0
    for graph in graphs:
        start, end = max(begin, graph.start - first_ordinal), graph.stop - first_ordinal
        if end > tail.rows or end <= begin:
            continue
        if start > begin:  # rows without a graph, or whose graph was let go because the newest view lacks them
            parts.append(TailPart(tail, index, begin, start))
        parts.append(TailPart(tail, index, start, end, graph, first_ordinal))
        begin = end
    return [*parts, TailPart(tail, index, begin, tail.rows)]
