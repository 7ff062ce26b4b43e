"""Indexes over the metadata of the log's tail, for filters, facets and searches by sparse vectors.

The rows of the tail are divided into blocks, each with its own indexes. Rows are only ever added, so a block is built
once and kept. As in a log-structured merge tree there are a few sizes of blocks, each eight times the next: the tail is
covered by the largest blocks that fit, so a row is indexed at most once per size, however often the tail is read while
it grows. What is left at the end, shorter than the smallest size, is indexed anew whenever the tail has grown.
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

BLOCK_ROWS: Final = (32_768, 4_096, 512, 64)
"""The sizes of blocks."""


def block_ranges(rows: int) -> list[tuple[int, int]]:
    """Half-open ranges that cover [0, rows). For a longer tail they are the same but at the end."""
    found: list[tuple[int, int]] = []
    at = 0
    for size in BLOCK_ROWS:
        while rows - at >= size:
            found.append((at, at + size))
            at += size
    if at < rows:
        found.append((at, rows))
    return found


class TailBlock:
    """The rows [start, stop) of a tail, dead ones included, with indexes: a
    `queryworker.filter.evaluate.FilterColumns`. Columns and indexes are made when they are first asked for; two threads
    may make the same one at once, which wastes work and gives equal results.
    """

    text_index = None

    def __init__(self, tail: Tail, start: int, stop: int, indexing: Indexing) -> None:
        self._indexing = indexing
        self.start = start
        self.stop = stop
        self.rows = stop - start
        # The lists, not the tail: that would hold on to its old vectors.
        self._lists = (tail.ids, tail.documents, tail.metadatas)
        self._ids: pa.LargeStringArray | None = None
        self._documents: pa.LargeStringArray | None = None
        self._metadata: MetadataIndex | None = None
        self._sparse: dict[str, InvertedIndex | None] = {}
        self.filters = CachedFilters(self)

    @property
    def ids(self) -> pa.LargeStringArray:
        if self._ids is None:
            self._ids = pa.array(self._lists[0][self.start : self.stop], pa.large_string())
        return self._ids

    @property
    def documents(self) -> pa.LargeStringArray:
        if self._documents is None:
            self._documents = pa.array(self._lists[1][self.start : self.stop], pa.large_string())
        return self._documents

    @property
    def metadata(self) -> MetadataIndex:
        if self._metadata is None:
            self._metadata = MetadataIndex.from_json(self._lists[2][self.start : self.stop], self._indexing)
        return self._metadata

    def sparse(self, key: str) -> InvertedIndex | None:
        """The index of the sparse vectors at a metadata key, None when no row has one."""
        if key not in self._sparse:
            self._sparse[key] = sparse_indexes(self._lists[2][self.start : self.stop], [key]).get(key)
        return self._sparse[key]

    @property
    def bytes(self) -> int:
        """About how much memory the columns and indexes take that were made."""
        columns: int = sum(column.nbytes for column in (self._ids, self._documents) if column is not None)
        sparse = sum(_sparse_bytes(index) for index in self._sparse.copy().values() if index is not None)
        metadata = 0 if self._metadata is None else _metadata_bytes(self._metadata)
        return columns + metadata + sparse + self.filters.bytes


def _metadata_bytes(index: MetadataIndex) -> int:
    columns = [index.column(key, kind) for key, kind in index.names()]
    return sum(array.nbytes for column in columns if column is not None for array in column.arrays())


def _sparse_bytes(index: InvertedIndex) -> int:
    return sum(
        array.nbytes for array in (index.indices, index.starts, index.rows, index.weights, index.least, index.most)
    )


class TailIndex:
    """The blocks over the tail of one memtable, kept from read to read. Any number of threads may use it."""

    def __init__(self, indexing: Indexing = EVERYTHING) -> None:
        """`indexing` is that of the segments: what they do not find, the tail must not find either."""
        self._indexing = indexing
        self._blocks: dict[int, TailBlock] = {}
        self._norms = np.empty(0, np.float32)
        self._growing = threading.Lock()

    def blocks(self, tail: Tail) -> list[TailBlock]:
        """Blocks that together cover the tail, ascending. The last one may be longer than the tail: it was made for a
        later position.
        """
        return [self._block(tail, start, stop) for start, stop in block_ranges(tail.rows)]

    def norms(self, tail: Tail) -> SquaredNorms:
        """`shared.vectors.distance.squared_norms` of the tail's vectors, float32 [tail.rows]."""
        norms = self._norms
        if len(norms) < tail.rows:
            with self._growing:
                norms = self._norms
                if len(norms) < tail.rows:
                    norms = np.concatenate([norms, squared_norms(tail.vectors[len(norms) :])])
                    self._norms = norms
        return norms[: tail.rows]

    @property
    def bytes(self) -> int:
        """About how much memory the blocks and norms take."""
        return self._norms.nbytes + sum(block.bytes for block in self._blocks.copy().values())

    def _block(self, tail: Tail, start: int, stop: int) -> TailBlock:
        block = self._blocks.get(start)
        if block is None or block.stop < stop:
            block = TailBlock(tail, start, stop, self._indexing)
            self._blocks[start] = block
            for covered in [other for other in self._blocks.copy() if start < other < stop]:
                self._blocks.pop(covered, None)
        return block
