"""The interface of the parts of a read view: a part is one segment, or one stretch of consecutive rows of the tail.

All parts answer the same questions, so that a read runs over them alike and merges what it found.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import numpy as np

from queryworker.filter.result import FilterResult
from shared.records.where import Where
from shared.segment.metadata_index import MetadataIndex
from shared.segment.sparse_index import InvertedIndex
from shared.vectors.arrays import Mask, Positions, RowNumbers, SquaredNorms, Vectors
from shared.vectors.codes import Codes


class GraphSearcher(Protocol):
    """A neighbour graph over the rows of a part."""

    @property
    def dimension_share(self) -> float:
        """The share of the dimensions that it compares. Less than 1: its order is about right, not exact."""
        ...

    def out_of_distribution(self, queries: Vectors) -> Mask:
        """About which of `queries` [q, d] its order says little, bool [q]."""
        ...

    def search(self, queries: Vectors, k: int, threads: int = 1) -> list[RowNumbers]:
        """About the `k` nearest rows of each query, dead rows included, nearest first; `threads` threads search at
        once. Fewer rows than `k` may come back.
        """
        ...


class IndexedRows(Protocol):
    """Rows with indexes over their metadata: those of a segment, or of one block of the tail."""

    @property
    def rows(self) -> int:
        """The number of rows."""
        ...

    @property
    def metadata(self) -> MetadataIndex: ...

    def sparse(self, key: str) -> InvertedIndex | None:
        """The index of the sparse vectors at a metadata key, None when no row has one."""
        ...


class IndexedRange(NamedTuple):
    """A range of a part's rows and where they lie in the indexes: the rows `in_part` of the part are the rows
    `in_index` of `indexed`.
    """

    indexed: IndexedRows
    in_part: slice
    in_index: slice

    def index_mask(self, part_mask: Mask | None) -> Mask | None:
        """The mask over the rows of `indexed` that a mask over the rows of the part means; None for all rows."""
        if part_mask is None and self.in_index == slice(0, self.indexed.rows):
            return None
        found = np.zeros(self.indexed.rows, np.bool_)
        found[self.in_index] = True if part_mask is None else part_mask[self.in_part]
        return found

    def part_rows(self, index_rows: RowNumbers) -> RowNumbers:
        """The row numbers in the part of row numbers in `indexed`."""
        shift: int = self.in_part.start - self.in_index.start
        return index_rows + shift


class ViewPart(Protocol):
    """Rows by number, as of the position of a read view. Every live record of a read view is a live row of exactly one
    part. The arrays and masks are parallel: `rows` elements each.
    """

    name: str
    """The name of the part in explanations."""

    rows: int
    """The number of rows, dead ones included."""

    graph: GraphSearcher | None

    live_rows: int
    """The number of live rows."""

    alive: Mask | None
    """The mask of live rows; None when all are."""

    vectors: Vectors
    codes: Codes | None
    """The quantised vectors, where there are any."""

    inserted: Positions
    """Position at which the record of each row was inserted."""

    written: Positions
    """Position at which the record of each row was changed last."""

    in_insertion_order: bool
    """Whether `inserted` ascends. In a segment that was made by extending another one it need not: records that were
    updated stand behind the others.
    """

    def is_alive(self, row: int) -> bool: ...

    def filter(self, where: Where) -> FilterResult:
        """Which rows match a filter, dead rows included. Errors as `queryworker.filter.evaluate.evaluate`."""
        ...

    def indexed_ranges(self) -> Sequence[IndexedRange]:
        """The ranges of metadata indexes in which the part's rows lie; the ranges together have each row once."""
        ...

    def norms(self, *, compute: bool) -> SquaredNorms | None:
        """`shared.vectors.distance.squared_norms` of the vectors; None when they are not at hand and `compute` is
        False.
        """
        ...

    def texts(self, column: str, rows: RowNumbers) -> list[str | None]:
        """The column `id`, `document`, `metadata` (JSON) or `uri` of these rows."""
        ...

    def text_bytes(self, column: str, rows: RowNumbers) -> int:
        """About how many bytes these texts have together."""
        ...
