"""The parts of a snapshot, all asked the same questions: segments with their dead rows, and the tail."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from queryworker import filter as filters
from queryworker.runs import TailIndex
from shared.memtable import Tail
from shared.segment.reader import Segment
from shared.where import Where

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]


class GraphSearcher(Protocol):
    """A neighbour graph over the rows of a part."""

    def search(self, queries: Vectors, k: int) -> list[Rows]:
        """About the `k` nearest rows of each query, dead ones included, nearest first."""
        ...


class ViewPart(Protocol):
    """Rows by number. Every live record of a snapshot is a living row of exactly one part."""

    rows: int
    graph: GraphSearcher | None
    living: int
    """How many rows are alive."""

    alive: Mask | None
    """Which are; None: all."""

    vectors: Vectors
    inserted: Rows
    """Position of insertion, by row."""

    ordered: bool
    """Whether `inserted` ascends. A segment that was made by extending another one need not: records that were updated
    stand behind.
    """

    def lives(self, row: int) -> bool: ...

    def match(self, where: Where, within: Mask | None) -> Mask:
        """The living rows (only those `within`, when given) that match a filter."""
        ...

    def norms(self, *, make: bool) -> Vectors | None:
        """`shared.distance.squared_norms` of the vectors; None when they are not at hand and not to be made."""
        ...

    def texts(self, column: str, rows: Rows) -> list[str | None]:
        """`id`, `document`, `metadata` or `uri` of these rows."""
        ...


class SegmentPart:
    """A segment of the manifest."""

    def __init__(self, segment: Segment, alive: Mask | None, *, ordered: bool) -> None:
        self.rows = segment.rows
        self.graph: GraphSearcher | None = segment if segment.info.graph else None
        self.alive = alive
        self.living = segment.rows if alive is None else int(np.count_nonzero(alive))
        self.vectors = segment.vectors
        self.inserted = segment.inserted
        self.ordered = ordered
        self._segment = segment

    def lives(self, row: int) -> bool:
        return self.alive is None or bool(self.alive[row])

    def match(self, where: Where, within: Mask | None) -> Mask:
        return filters.evaluate(where, self._segment, self.alive if within is None else within)

    def norms(self, *, make: bool) -> Vectors | None:
        return self._segment.norms if make or "norms" in vars(self._segment) else None

    def texts(self, column: str, rows: Rows) -> list[str | None]:
        return self._segment.text(column).read(rows)


class TailPart:
    """The log's tail."""

    def __init__(self, tail: Tail, index: TailIndex) -> None:
        self.rows = tail.rows
        self.graph: GraphSearcher | None = None
        self.living = int(np.count_nonzero(tail.alive))
        self.alive = None if self.living == tail.rows else tail.alive
        self.vectors = tail.vectors
        self.inserted = tail.inserted
        self.ordered = False
        self._tail = tail
        self._index = index

    def lives(self, row: int) -> bool:
        return bool(self._tail.alive[row])

    def match(self, where: Where, within: Mask | None) -> Mask:
        mask = self._tail.alive if within is None else within
        found = np.zeros(self.rows, np.bool_)
        for run in self._index.runs(self._tail):
            stop = min(run.stop, self.rows)
            of_interest = np.zeros(run.rows, np.bool_)
            of_interest[: stop - run.start] = mask[run.start : stop]
            if of_interest.any():
                found[run.start : stop] = filters.evaluate(where, run, of_interest)[: stop - run.start]
        return found

    def norms(self, *, make: bool) -> Vectors | None:
        return self._index.norms(self._tail)

    def texts(self, column: str, rows: Rows) -> list[str | None]:
        tail = self._tail
        values: dict[str, list[str | None] | list[str]] = {
            "id": tail.ids,
            "document": tail.documents,
            "metadata": tail.metadatas,
            "uri": tail.uris,
        }
        return list(map(values[column].__getitem__, rows.tolist()))
