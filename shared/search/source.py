"""The port that a search reads records through: one state of a collection, be it in this process or in several shards
on other machines.
"""

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
    """The number of records, and how many of them have each index of the i-th sparse query
    (`document_frequencies[i]`, int64 [n]).
    """

    records: int
    document_frequencies: list[Int64Array]


@dataclass(frozen=True, slots=True)
class Tally:
    """How many records match, and for each field its values with how many of those records have them (an array has each
    of its elements).
    """

    count: int
    facets: Mapping[str, Sequence[tuple[FacetValue, int]]]


@dataclass(frozen=True, slots=True)
class WantedColumns:
    """The columns of records that are read; ids always are."""

    documents: bool = False
    metadatas: bool = False
    embeddings: bool = False


class RecordSource(Protocol):
    """Records are named by their positions of insertion. All methods see the same state of the collection,
    and raise InvalidArgument for a query of another dimension. Those of a source over shards elsewhere raise, too, what
    calls to workers raise (`frontend.read.workers.Workers`).

    `shared.search.execution` uses it; a query worker implements it over a shard in memory
    (`queryworker.query.search_source.ReadViewSource`), a frontend by calls to the workers of all shards
    (`frontend.read.searching.ShardsSource`).
    """

    async def nearest(self, where: Where | None, knns: Sequence[Knn]) -> list[Neighbours]:
        """The nearest matching records of each of `knns`, equal distances by insertion. None of them is `bm25`."""
        ...

    async def frequencies(self, asked: Sequence[tuple[str, SparseIndices]]) -> Frequencies:
        """The document frequencies of the indices, for each (sparse key, indices)."""
        ...

    async def page(
        self, where: Where | None, order_by: Sequence[OrderKey], offset: int, limit: int | None
    ) -> Positions:
        """The matching records, as `order_by` says or by insertion, `offset` of them skipped, at most `limit`."""
        ...

    async def rows(self, inserted: Positions, wanted: WantedColumns) -> Columns:
        """Columns of these records, in this order. All of them exist: they come from another method of this source."""
        ...

    async def tally(self, where: Where | None, fields: Sequence[str]) -> Tally:
        """The number of records that match, and the counts of their values at each of `fields`."""
        ...

    async def compute(
        self, size: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """The result of `work`, which takes as long as handling `size` bytes, computed where it delays no other
        request.
        """
        ...
