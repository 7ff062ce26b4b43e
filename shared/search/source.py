"""What a search reads from: one snapshot of a collection, whether it is one shard at hand or several far away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

from shared.records.columns import Columns
from shared.records.where import Where
from shared.search.model import Knn, OrderKey
from shared.search.ranking import Neighbours
from shared.vectors.arrays import Int64Array, Positions, SparseIndices

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

FacetValue = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Frequencies:
    """How many records there are, and how many of them have each index that was asked about, per question."""

    records: int
    having: list[Int64Array]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many records match, and per field how many of those have each value (of arrays: as an element)."""

    count: int
    facets: Mapping[str, Sequence[tuple[FacetValue, int]]]


@dataclass(frozen=True, slots=True)
class WantedColumns:
    """Which columns of records are read; ids always are."""

    documents: bool = False
    metadatas: bool = False
    embeddings: bool = False


class RecordSource(Protocol):
    """Records are named by their positions of insertion. All methods see the same state of the collection."""

    async def nearest(self, where: Where | None, knns: Sequence[Knn]) -> list[Neighbours]:
        """The nearest matching records of each of `knns`, equal distances by insertion. None of them is `bm25`."""
        ...

    async def frequencies(self, asked: Sequence[tuple[str, SparseIndices]]) -> Frequencies:
        """For each (sparse key, indices)."""
        ...

    async def page(
        self, where: Where | None, order_by: Sequence[OrderKey], offset: int, limit: int | None
    ) -> Positions:
        """The matching records, as `order_by` says or by insertion, `offset` of them skipped, at most `limit`."""
        ...

    async def rows(self, inserted: Positions, wanted: WantedColumns) -> Columns:
        """Columns of these records, in this order. None of them is missing."""
        ...

    async def tally(self, where: Where | None, fields: Sequence[str]) -> Tally:
        """Counts of the matching records."""
        ...

    async def compute(
        self, size: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """Does `work` on about `size` bytes where nobody else waits for it."""
        ...
