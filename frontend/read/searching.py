"""Searches of a collection: ranked, filtered, grouped, sorted and counted records.

The worker of a collection with one shard answers its searches whole. The shards of any other are one source of records
(`ShardsSource`) for the steps of a search (`shared.search.execution`), which the frontend takes itself.

All steps of all searches of a request see the state as of one position of the log. Where there is none for all shards
(`frontend.read.consistency`), the first request to a shard says as of which position it was answered, and the later
ones ask for that. Everything raises StaleRead when a shard cannot answer as of such a position (any more).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

import msgspec
import numpy as np

from frontend.concurrency import off_loop
from frontend.read.merge import encoded_bytes, merge_get, page_of, positions
from frontend.read.shards import first_shard
from shared.process.concurrency import together
from shared.records.columns import Columns
from shared.records.selection import Selection
from shared.records.where import Where
from shared.rpc.messages import CountRequest, GetRequest, GetResponse, Shard
from shared.rpc.search_messages import (
    FrequenciesRequest,
    NearestRequest,
    NearestResponse,
    OrderedRequest,
    OrderedResponse,
    SearchRequest,
    TallyRequest,
    TallyResponse,
    Value,
)
from shared.search.answer_body import encode_searches
from shared.search.execution import execute_search
from shared.search.model import Knn, OrderKey, Searches
from shared.search.ordering import sorted_indices
from shared.search.ranking import Neighbours, nearest_of
from shared.search.row_order import take_rows
from shared.search.source import Arguments, Frequencies, Result, Tally, WantedColumns
from shared.vectors.arrays import Distances, Positions, SparseIndices

if TYPE_CHECKING:
    from frontend.http.responses import Body
    from frontend.read.workers import Workers
    from shared.catalog import Collection


KNN_BYTES: Final = 1024
"""Merging what was found for a `$knn` takes as long as handling so many bytes."""

VALUE_BYTES: Final = 64
"""Merging one value takes as long as handling so many bytes."""


class _AnsweredAsOf(Protocol):
    """A response that says as of which log position it was answered."""

    @property
    def position(self) -> int: ...


Response = TypeVar("Response", bound=_AnsweredAsOf)


async def search_body(workers: Workers, collection: Collection, request: Searches) -> Body:
    """The body of the answer to all searches of a request, in chunks when it is long and the worker encodes it. Raises
    InvalidArgument for a query of another dimension than the collection's.
    """
    if not request.searches:
        return encode_searches([])
    shard = first_shard(collection, request.read_level, request.as_of, past=request.past)
    if collection.shards == 1:
        return await workers.search_body(SearchRequest(shard, request.searches))
    answers = await together(
        [execute_search(ShardsSource(workers, collection, shard), search) for search in request.searches]
    )
    size = sum(encoded_bytes(each.columns) + VALUE_BYTES * _facet_values(each.tally) for each in answers)
    return await off_loop(size, encode_searches, answers)


def _facet_values(tally: Tally | None) -> int:
    return 0 if tally is None else sum(map(len, tally.facets.values()))


class ShardsSource:
    """A `shared.search.source.RecordSource` over all shards of a collection, for one search: read as `first` says, and
    where that has no position, as of that of each shard's first answer. Its methods raise StaleRead when a shard cannot
    answer as of it.
    """

    def __init__(self, workers: Workers, collection: Collection, first: Shard) -> None:
        self._workers = workers
        self._shards = {number: msgspec.structs.replace(first, shard=number) for number in collection.layout.numbers}

    async def nearest(self, where: Where | None, knns: Sequence[Knn]) -> list[Neighbours]:
        """The nearest matching records of each of `knns`, equal distances by insertion."""
        answers = await self._ask(lambda shard: self._workers.nearest(NearestRequest(shard, where, list(knns))))
        size = sum(len(answer.inserted) + len(answer.distances) for answer in answers)
        return await off_loop(size + KNN_BYTES * len(knns), _merged, answers, [knn.limit for knn in knns])

    async def frequencies(self, asked: Sequence[tuple[str, SparseIndices]]) -> Frequencies:
        """The number of records, and for each (sparse key, indices) how many records have each index."""
        keys = [key for key, _ in asked]
        indices = [each.astype("<u4", copy=False).tobytes() for _, each in asked]
        answers = await self._ask(lambda shard: self._workers.frequencies(FrequenciesRequest(shard, keys, indices)))
        document_frequencies = [
            np.sum([np.frombuffer(answer.document_frequencies[place], "<i8") for answer in answers], axis=0)
            for place in range(len(asked))
        ]
        return Frequencies(sum(answer.records for answer in answers), document_frequencies)

    async def page(
        self, where: Where | None, order_by: Sequence[OrderKey], offset: int, limit: int | None
    ) -> Positions:
        """Insertion positions, int64 [n], of the matching records in the order of `order_by`, else of insertion:
        `offset` of them skipped, then at most `limit` (None: all).
        """
        end = None if limit is None else offset + limit
        if order_by:
            return (await self._ordered(where, order_by, end))[offset:]
        selection = Selection(where=where)
        answers = await self._ask(lambda shard: self._workers.get(GetRequest(shard, selection, limit=end, ids=False)))
        chosen = page_of([positions(answer.inserted) for answer in answers], offset, limit)
        return np.sort(np.concatenate(chosen))

    async def rows(self, inserted: Positions, wanted: WantedColumns) -> Columns:
        """Columns of the records with these insertion positions, int64 [n], in this order. Every shard is asked for
        all of them: only the shards know which of them has which record.
        """
        ascending = np.sort(inserted)
        encoded = ascending.astype("<i8", copy=False).tobytes()

        def request(shard: Shard) -> GetRequest:
            return GetRequest(
                shard,
                documents=wanted.documents,
                metadatas=wanted.metadatas,
                embeddings=wanted.embeddings,
                inserted=encoded,
            )

        answers = await self._ask(lambda shard: self._workers.get(request(shard)))
        size = sum(encoded_bytes(answer.columns) for answer in answers)
        return await off_loop(size, _in_order, answers, ascending, inserted)

    async def tally(self, where: Where | None, fields: Sequence[str]) -> Tally:
        """The number of matching records, and how many of them have each value of each of `fields`."""
        if not fields:
            selection = Selection(where=where)
            counts = await self._ask(lambda shard: self._workers.count(CountRequest(shard, selection)))
            return Tally(sum(answer.count for answer in counts), {})
        answers = await self._ask(lambda shard: self._workers.tally(TallyRequest(shard, where, list(fields))))
        size = VALUE_BYTES * sum(len(values) for answer in answers for values in answer.facets)
        return await off_loop(size, _tallied, answers, fields)

    async def compute(
        self, size: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        """The result of `work`, off the event loop when it handles many bytes (`size`)."""
        return await off_loop(size, work, *args, **kwargs)

    async def _ordered(self, where: Where | None, order_by: Sequence[OrderKey], limit: int | None) -> Positions:
        answers = await self._ask(
            lambda shard: self._workers.ordered(OrderedRequest(shard, where, list(order_by), limit))
        )
        size = VALUE_BYTES * sum(len(answer.values) for answer in answers)
        return await off_loop(size, _sorted, answers, order_by, limit)

    async def _ask(self, ask: Callable[[Shard], Awaitable[Response]]) -> list[Response]:
        """The responses of all shards. A shard's first response fixes the position that its later ones are as of."""
        shards = self._shards
        answers = await together([ask(shard) for shard in shards.values()])
        for (number, shard), answer in zip(shards.items(), answers, strict=True):
            if shard.as_of is None:
                shards[number] = msgspec.structs.replace(shard, as_of=answer.position)
        return answers


def _in_order(answers: Sequence[GetResponse], ascending: Positions, inserted: Positions) -> Columns:
    """The merged rows, which come ascending by insertion, in the order of `inserted`."""
    return take_rows(merge_get(answers), np.searchsorted(ascending, inserted))


def _tallied(answers: Sequence[TallyResponse], fields: Sequence[str]) -> Tally:
    """The sums of what the shards counted."""
    facets: dict[str, list[tuple[Value, int]]] = {}
    for place, field in enumerate(fields):
        # Typed: 1, 1.0 and True are equal to Python.
        summed: Counter[tuple[type, Value]] = Counter()
        for answer in answers:
            for value, count in answer.facets[place]:
                summed[type(value), value] += count
        facets[field] = [(value, count) for (_, value), count in summed.items()]
    return Tally(sum(answer.count for answer in answers), facets)


def _sorted(answers: Sequence[OrderedResponse], order_by: Sequence[OrderKey], limit: int | None) -> Positions:
    """The first `limit` (None: all) of what the shards found, sorted by `order_by`, equal values by insertion."""
    inserted = np.concatenate([positions(answer.inserted) for answer in answers])
    values = [row for answer in answers for row in answer.values]
    by_insertion = np.argsort(inserted)
    places = sorted_indices(order_by, [values[place] for place in by_insertion.tolist()])[:limit]
    return inserted[by_insertion[np.array(places, np.intp)]]


def _merged(answers: Sequence[NearestResponse], limits: Sequence[int]) -> list[Neighbours]:
    """The nearest records that any shard found for each `$knn`, at most `limits[i]` of the i-th, equal distances by
    insertion.
    """
    inserted: list[list[Positions]] = [[] for _ in limits]
    distances: list[list[Distances]] = [[] for _ in limits]
    for answer in answers:
        ends = accumulate(answer.counts, initial=0)
        all_inserted, all_distances = np.frombuffer(answer.inserted, "<i8"), np.frombuffer(answer.distances, "<f4")
        for place, (begin, end) in enumerate(pairwise(ends)):
            inserted[place].append(all_inserted[begin:end])
            distances[place].append(all_distances[begin:end])
    return list(map(nearest_of, inserted, distances, limits))
