"""The tail cut into runs that filters can be evaluated on.

A run is a stretch of slots with an index over its metadata. Slots only grow, so runs are built once and kept: whole
runs are of a few sizes, each the eighth of the next, and rows are covered by the largest that fit (a row is indexed
at most once per size, however often the tail is read while it grows). The rest, shorter than the smallest size, is
built anew whenever the tail has grown.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
import pyarrow as pa

from queryworker.filter.cached import CachedFilters
from shared.memtable.versions import Tail
from shared.records.indexing import EVERYTHING, Indexing
from shared.segment.metadata_index import MetadataIndex
from shared.segment.sparse_index import InvertedIndex, sparse_indexes
from shared.vectors.arrays import SquaredNorms
from shared.vectors.distance import squared_norms

SIZES: Final = (32_768, 4_096, 512, 64)


def spans(rows: int) -> list[tuple[int, int]]:
    """Half-open stretches that cover [0, rows), the same for a longer tail but at the end."""
    found: list[tuple[int, int]] = []
    at = 0
    for size in SIZES:
        while rows - at >= size:
            found.append((at, at + size))
            at += size
    if at < rows:
        found.append((at, rows))
    return found


class Run:
    """Slots [start, stop) of a tail as `queryworker.filter.evaluate.FilterColumns`; dead slots are in it too. Columns
    are made on demand.
    """

    text_index = None

    def __init__(self, tail: Tail, start: int, stop: int, indexing: Indexing) -> None:
        self._indexing = indexing
        self.start = start
        self.stop = stop
        self.rows = stop - start
        # The lists, not the tail: that would hold on to its old vectors.
        self._lists = (tail.ids, tail.documents, tail.metadatas)
        self._ids: pa.Array | None = None
        self._documents: pa.Array | None = None
        self._metadata: MetadataIndex | None = None
        self._sparse: dict[str, InvertedIndex | None] = {}
        self.filters = CachedFilters(self)

    # Two threads may make the same column at once: the work is wasted, the results are equal.

    @property
    def ids(self) -> pa.Array:
        if self._ids is None:
            self._ids = pa.array(self._lists[0][self.start : self.stop], pa.large_string())
        return self._ids

    @property
    def documents(self) -> pa.Array:
        if self._documents is None:
            self._documents = pa.array(self._lists[1][self.start : self.stop], pa.large_string())
        return self._documents

    @property
    def metadata(self) -> MetadataIndex:
        if self._metadata is None:
            self._metadata = MetadataIndex.from_json(self._lists[2][self.start : self.stop], self._indexing)
        return self._metadata

    def sparse(self, key: str) -> InvertedIndex | None:
        """Of the sparse vectors at a key, None when no row has one."""
        if key not in self._sparse:
            self._sparse[key] = sparse_indexes(self._lists[2][self.start : self.stop], [key]).get(key)
        return self._sparse[key]


class TailIndex:
    """What is kept of one memtable between reads. Any number of threads may use it. `indexing` is that of the segments:
    what they do not find, the tail must not find either.
    """

    def __init__(self, indexing: Indexing = EVERYTHING) -> None:
        self._indexing = indexing
        self._runs: dict[int, Run] = {}
        self._norms = np.empty(0, np.float32)
        self._growing = threading.Lock()

    def runs(self, tail: Tail) -> list[Run]:
        """Runs that together cover the tail; the last one may be longer than the tail (it was made for a later one)."""
        return [self._run(tail, start, stop) for start, stop in spans(tail.rows)]

    def norms(self, tail: Tail) -> SquaredNorms:
        """`squared_norms` of the tail's vectors."""
        norms = self._norms
        if len(norms) < tail.rows:
            with self._growing:
                norms = self._norms
                if len(norms) < tail.rows:
                    norms = np.concatenate([norms, squared_norms(tail.vectors[len(norms) :])])
                    self._norms = norms
        return norms[: tail.rows]

    def _run(self, tail: Tail, start: int, stop: int) -> Run:
        run = self._runs.get(start)
        if run is None or run.stop < stop:
            run = Run(tail, start, stop, self._indexing)
            self._runs[start] = run
            for inner in [other for other in self._runs.copy() if start < other < stop]:
                self._runs.pop(inner, None)
        return run
