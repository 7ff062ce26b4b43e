"""The segments of one manifest as parts of read views."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pyroaring import BitMap

from queryworker.filter.cached import CachedFilters
from queryworker.filter.result import FilterResult
from queryworker.view.part import GraphSearcher, IndexedRange
from shared.memtable.memtable import Memtable
from shared.records.where import Where
from shared.segment.reader import Segment
from shared.segment.segment_set import SegmentSet
from shared.vectors.arrays import Mask, RowNumbers, SquaredNorms


class SegmentPart:
    """A segment with the rows that are alive as of one position: a `queryworker.view.part.ViewPart`."""

    def __init__(
        self, segment: Segment, filters: CachedFilters, alive: Mask | None, *, in_insertion_order: bool
    ) -> None:
        """`filters` are those of the segment; `alive` is None when all rows are alive."""
        self.name = f"segment {segment.info.id}"
        self.rows = segment.rows
        self.graph: GraphSearcher | None = segment if segment.info.graph else None
        self.alive = alive
        self.live_rows = segment.rows if alive is None else int(np.count_nonzero(alive))
        self.vectors = segment.vectors
        self.codes = segment.codes
        self.inserted = segment.inserted
        self.written = segment.written
        self.in_insertion_order = in_insertion_order
        self._segment = segment
        self._filters = filters

    def is_alive(self, row: int) -> bool:
        return self.alive is None or bool(self.alive[row])

    def filter(self, where: Where) -> FilterResult:
        return self._filters.evaluate(where)

    def indexed_ranges(self) -> Sequence[IndexedRange]:
        whole = slice(0, self.rows)
        return [IndexedRange(self._segment, whole, whole)]

    def norms(self, *, compute: bool) -> SquaredNorms | None:
        return self._segment.norms if compute or "norms" in vars(self._segment) else None

    def texts(self, column: str, rows: RowNumbers) -> list[str | None]:
        return self._segment.text(column).read(rows)

    def text_bytes(self, column: str, rows: RowNumbers) -> int:
        return self._segment.text(column).bytes(rows)


class BaseSegments:
    """The segments of one manifest, and what reads of them leave behind for the next ones: filter results and masks of
    live rows. Any number of threads may use it.
    """

    def __init__(self, segments: SegmentSet) -> None:
        self.segments = segments
        self._without_tombstones = [
            _without_tombstones(segment.rows, dead)
            for segment, dead in zip(segments.segments, segments.tombstones, strict=True)
        ]
        self._filters = [CachedFilters(segment) for segment in segments.segments]
        self._in_insertion_order = [bool((np.diff(segment.inserted) > 0).all()) for segment in segments.segments]
        self._alive: dict[int, tuple[int, Mask]] = {}

    @property
    def bytes(self) -> int:
        """About how much memory is held beside the segments themselves."""
        masks = [mask for _, mask in self._alive.copy().values()]
        return sum(filters.bytes for filters in self._filters) + sum(mask.nbytes for mask in masks)

    def parts(self, memtable: Memtable, position: int) -> list[SegmentPart]:
        """A part for each segment, without the rows that the tail deleted as of a position."""
        return [
            SegmentPart(
                segment,
                self._filters[number],
                self._alive_rows(number, memtable.deleted_rows(number, position)),
                in_insertion_order=self._in_insertion_order[number],
            )
            for number, segment in enumerate(self.segments.segments)
        ]

    def _alive_rows(self, number: int, deleted: RowNumbers) -> Mask | None:
        """The rows of a segment that are alive; None when all are. The newest mask of each segment is kept: as of a
        position the deletions are the first ones of a list that only grows, so their number says which they are.
        """
        if not len(deleted):
            return self._without_tombstones[number]
        count, mask = self._alive.get(number, (0, None))
        if mask is None or count != len(deleted):
            undeleted = self._without_tombstones[number]
            mask = np.ones(self.segments.segments[number].rows, np.bool_) if undeleted is None else undeleted.copy()
            mask[deleted] = False
            self._alive[number] = (len(deleted), mask)
        return mask


def _without_tombstones(rows: int, tombstones: BitMap) -> Mask | None:
    """The rows that have no tombstone; None when there are no tombstones."""
    if not tombstones:
        return None
    mask = np.ones(rows, np.bool_)
    mask[np.asarray(tombstones.to_array(), np.uint32)] = False
    return mask
