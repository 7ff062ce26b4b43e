"""A shard as a read sees it: its records as of one position.

The name is that of databases with multi-version concurrency control: a read view says which versions of records a read
sees, while writes go on. It holds no lock, and takes no copy of the records.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from queryworker.view.part import ViewPart
from queryworker.view.segment_part import BaseSegments
from queryworker.view.tail_graphs import TailGraph
from queryworker.view.tail_index import TailIndex
from queryworker.view.tail_part import TailPart, tail_parts
from shared.memtable.memtable import Memtable
from shared.memtable.versions import Tail
from shared.process.lazy import lazy
from shared.vectors.arrays import RowNumbers
from shared.vectors.space import Space


@dataclass(frozen=True, eq=False)
class ReadView:
    """A shard as of `position`: every operation below it is applied, none from it on. Any number of threads may use it.

    Its parts are made when they are first asked for: a count needs none. `first_ordinal` is the ordinal of the tail's
    row 0 (`queryworker.view.tail_graphs`); `dimension` is None while no vector was written.
    """

    position: int
    space: Space
    dimension: int | None
    base: BaseSegments
    memtable: Memtable
    tail: Tail
    tail_index: TailIndex
    tail_graphs: Sequence[TailGraph]
    first_ordinal: int

    @lazy
    def live_records(self) -> int:
        """The number of records."""
        segments = self.base.segments
        deleted = sum(
            len(self.memtable.deleted_rows(number, self.position)) for number in range(len(segments.segments))
        )
        return segments.live_rows - deleted + int(np.count_nonzero(self.tail.alive))

    @lazy
    def parts(self) -> tuple[ViewPart, ...]:
        """A part for each segment, then the parts of the tail."""
        return (*self.base.parts(self.memtable, self.position), *self._tail_parts)

    @lazy
    def tail_starts(self) -> tuple[int, ...]:
        """The first row, in the tail, of each of the tail's parts."""
        return tuple(part.start for part in self._tail_parts)

    @lazy
    def _tail_parts(self) -> list[TailPart]:
        return tail_parts(self.tail, self.tail_index, self.tail_graphs, self.first_ordinal)

    def find(self, ids: Sequence[str]) -> list[RowNumbers]:
        """The rows of the live records with these ids: for each part of `parts` the row numbers in it, ascending."""
        wanted = list(dict.fromkeys(ids))
        rows: list[list[int]] = [[] for _ in self.parts]
        for ref in self.base.segments.find(wanted):
            if ref is not None and self.parts[ref.segment].is_alive(ref.row):
                rows[ref.segment].append(ref.row)
        tail_rows = self.memtable.find(wanted, self.tail)
        for row in tail_rows[tail_rows >= 0].tolist():
            number = bisect_right(self.tail_starts, row) - 1
            rows[number - len(self.tail_starts)].append(row - self.tail_starts[number])
        return [np.array(sorted(part), np.int64) for part in rows]
