"""The parts of a snapshot, all asked the same questions: segments with their dead rows, and the tail."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from pyroaring import BitMap

from queryworker.filter.cached import CachedFilters
from queryworker.filter.result import FilterResult, concatenated
from queryworker.view.tail_graphs import Stretch
from queryworker.view.tail_index import Run, TailIndex
from shared.memtable.memtable import Memtable
from shared.memtable.versions import Tail
from shared.records.where import Where
from shared.segment.metadata_index import MetadataIndex
from shared.segment.reader import Segment
from shared.segment.segment_set import SegmentSet
from shared.segment.sparse_index import InvertedIndex
from shared.vectors.arrays import Mask, Positions, RowNumbers, SquaredNorms, Vectors
from shared.vectors.codes import Codes


class GraphSearcher(Protocol):
    """A neighbour graph over the rows of a part."""

    @property
    def dimension_share(self) -> float:
        """Which part of the dimensions it compares. Less than 1: its order is about right, not exact."""
        ...

    def out_of_distribution(self, queries: Vectors) -> Mask:
        """About which of `queries` [q, d], bool [q], its order says little."""
        ...

    def search(self, queries: Vectors, k: int, threads: int = 1) -> list[RowNumbers]:
        """About the `k` nearest rows of each query, dead ones included, nearest first; by so many threads at once."""
        ...


class Indexed(Protocol):
    """Rows with indexes over their metadata: a segment, or a run of the tail."""

    @property
    def rows(self) -> int: ...
    @property
    def metadata(self) -> MetadataIndex: ...

    def sparse(self, key: str) -> InvertedIndex | None:
        """Of the sparse vectors at a key, None when no row has one."""
        ...


class Piece(NamedTuple):
    """Rows `there` of `indexed` are the rows `here` of a part."""

    indexed: Indexed
    here: slice
    there: slice

    def mask(self, of_part: Mask | None) -> Mask | None:
        """Of the rows of `indexed`, those of the part's mask; None for all."""
        if of_part is None and self.there == slice(0, self.indexed.rows):
            return None
        found = np.zeros(self.indexed.rows, np.bool_)
        found[self.there] = True if of_part is None else of_part[self.here]
        return found

    def in_part(self, rows: RowNumbers) -> RowNumbers:
        """The numbers in the part of rows of `indexed`."""
        shift: int = self.here.start - self.there.start
        return rows + shift


class ViewPart(Protocol):
    """Rows by number. Every live record of a snapshot is a living row of exactly one part."""

    name: str
    rows: int
    graph: GraphSearcher | None
    living: int
    """How many rows are alive."""

    alive: Mask | None
    """Which are; None: all."""

    vectors: Vectors
    codes: Codes | None
    """Of the vectors, where there are any."""

    inserted: Positions
    """Position of insertion, by row."""

    written: Positions
    """Position of the last change, by row."""

    ordered: bool
    """Whether `inserted` ascends. A segment that was made by extending another one need not: records that were updated
    stand behind.
    """

    def lives(self, row: int) -> bool: ...

    def match(self, where: Where) -> FilterResult:
        """What a filter says of all rows, dead ones included."""
        ...

    def pieces(self) -> Sequence[Piece]:
        """What indexes the part's metadata; together they have each row once."""
        ...

    def norms(self, *, make: bool) -> SquaredNorms | None:
        """`shared.vectors.distance.squared_norms` of the vectors; None when they are not at hand and not to be made."""
        ...

    def texts(self, column: str, rows: RowNumbers) -> list[str | None]:
        """`id`, `document`, `metadata` or `uri` of these rows."""
        ...

    def text_bytes(self, column: str, rows: RowNumbers) -> int:
        """About how long these texts are together."""
        ...


class SegmentPart:
    """A segment of the manifest."""

    def __init__(self, segment: Segment, filters: CachedFilters, alive: Mask | None, *, ordered: bool) -> None:
        self.name = f"segment {segment.info.id}"
        self.rows = segment.rows
        self.graph: GraphSearcher | None = segment if segment.info.graph else None
        self.alive = alive
        self.living = segment.rows if alive is None else int(np.count_nonzero(alive))
        self.vectors = segment.vectors
        self.codes = segment.codes
        self.inserted = segment.inserted
        self.written = segment.written
        self.ordered = ordered
        self._segment = segment
        self._filters = filters

    def lives(self, row: int) -> bool:
        return self.alive is None or bool(self.alive[row])

    def match(self, where: Where) -> FilterResult:
        return self._filters.evaluate(where)

    def pieces(self) -> Sequence[Piece]:
        whole = slice(0, self.rows)
        return [Piece(self._segment, whole, whole)]

    def norms(self, *, make: bool) -> SquaredNorms | None:
        return self._segment.norms if make or "norms" in vars(self._segment) else None

    def texts(self, column: str, rows: RowNumbers) -> list[str | None]:
        return self._segment.text(column).read(rows)

    def text_bytes(self, column: str, rows: RowNumbers) -> int:
        return self._segment.text(column).bytes(rows)


class BaseParts:
    """The segments of one manifest as parts of snapshots. Any number of threads may use it."""

    def __init__(self, stack: SegmentSet) -> None:
        self.stack = stack
        segments = stack.segments
        self._undeleted = [
            _undeleted(segment.rows, dead) for segment, dead in zip(segments, stack.tombstones, strict=True)
        ]
        self._filters = [CachedFilters(segment) for segment in segments]
        self._ordered = [bool((np.diff(segment.inserted) > 0).all()) for segment in segments]
        self._alive: dict[int, tuple[int, Mask]] = {}

    @property
    def bytes(self) -> int:
        """About what is held beside the segments."""
        return sum(filters.bytes for filters in self._filters)

    def at(self, memtable: Memtable, position: int) -> list[SegmentPart]:
        """A part for each segment, without what the tail has killed as of a position."""
        return [
            SegmentPart(
                segment,
                self._filters[number],
                self._alive_rows(number, memtable.deleted_rows(number, position)),
                ordered=self._ordered[number],
            )
            for number, segment in enumerate(self.stack.segments)
        ]

    def _alive_rows(self, number: int, killed: RowNumbers) -> Mask | None:
        """The rows of a segment that are alive; None when all are. The newest mask is kept: kills only grow."""
        if not len(killed):
            return self._undeleted[number]
        count, mask = self._alive.get(number, (0, None))
        if mask is None or count != len(killed):
            undeleted = self._undeleted[number]
            mask = np.ones(self.stack.segments[number].rows, np.bool_) if undeleted is None else undeleted.copy()
            mask[killed] = False
            self._alive[number] = (len(killed), mask)
        return mask


def _undeleted(rows: int, tombstones: BitMap) -> Mask | None:
    """The rows that have no tombstone; None when none has."""
    if not tombstones:
        return None
    mask = np.ones(rows, np.bool_)
    mask[np.asarray(tombstones.to_array(), np.uint32)] = False
    return mask


class _StretchSearcher:
    """The graph of the slots from `place` on."""

    dimension_share = 1.0

    def out_of_distribution(self, queries: Vectors) -> Mask:
        return np.zeros(len(queries), np.bool_)

    def __init__(self, stretch: Stretch, place: int) -> None:
        self._stretch = stretch
        self._place = place

    def search(self, queries: Vectors, k: int, threads: int = 1) -> list[RowNumbers]:
        return self._stretch.search_from(self._place, queries, k, threads)


class TailPart:
    """The slots [start, stop) of the log's tail; its rows are counted from `start`. With a stretch there is a graph
    for exactly them, but for those below the view's `origin` that it may begin with.
    """

    def __init__(
        self, tail: Tail, index: TailIndex, start: int, stop: int, stretch: Stretch | None = None, origin: int = 0
    ) -> None:
        self.name = "tail"
        self.start = start
        self.rows = stop - start
        self.graph: GraphSearcher | None = _StretchSearcher(stretch, origin + start) if stretch else None
        alive = tail.alive[start:stop]
        self.living = int(np.count_nonzero(alive))
        self.alive = None if self.living == self.rows else alive
        self.vectors = tail.vectors[start:stop]
        self.codes: Codes | None = None
        self.inserted = tail.inserted[start:stop]
        self.written = tail.written[start:stop]
        self.ordered = False
        self._stop = stop
        self._tail = tail
        self._index = index

    def lives(self, row: int) -> bool:
        return bool(self._tail.alive[self.start + row])

    def match(self, where: Where) -> FilterResult:
        return concatenated(
            [
                (here.start, run.filters.evaluate(where).slice(there.start, there.stop))
                for run, here, there in self._runs()
            ]
        )

    def pieces(self) -> Sequence[Piece]:
        return list(itertools.starmap(Piece, self._runs()))

    def _runs(self) -> Iterator[tuple[Run, slice, slice]]:
        """Runs with rows of the part: which of its rows, and which of theirs."""
        begin = self.start
        for run in self._index.runs(self._tail):  # some may reach into the next ones: they were made for a longer tail
            end = min(run.stop, self._stop)
            if begin < end:
                here, there = slice(begin - self.start, end - self.start), slice(begin - run.start, end - run.start)
                yield run, here, there
                begin = end

    def norms(self, *, make: bool) -> SquaredNorms | None:
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


def tail_parts(tail: Tail, index: TailIndex, stretches: Sequence[Stretch], origin: int) -> list[TailPart]:
    """A part for each stretch that the tail has as a whole, and one for the slots behind those. `origin`: place of the
    tail's first slot among those of the stretches.
    """
    parts: list[TailPart] = []
    begin = 0
    for stretch in stretches:
        start, end = max(begin, stretch.start - origin), stretch.stop - origin
        if end > tail.rows or end <= begin:
            continue
        if start > begin:  # slots that have no graph, or whose graphs went, since the newest view has not got them
            parts.append(TailPart(tail, index, begin, start))
        parts.append(TailPart(tail, index, start, end, stretch, origin))
        begin = end
    return [*parts, TailPart(tail, index, begin, tail.rows)]
