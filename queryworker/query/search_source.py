"""Searches over one shard as of one position: whole ones where the shard is the collection, else the steps out of which
the frontend makes one search over all shards. Pure functions of a read view; they run in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import orjson

from queryworker.query.answers import ReadContext
from queryworker.query.field_values import first_rows, value_counts
from queryworker.query.get import get_records
from queryworker.query.knn import query_nearest
from queryworker.query.selected_rows import SelectedRows, select
from queryworker.view.part import IndexedRange
from queryworker.view.read_view import ReadView
from shared.process import work
from shared.records.columns import Columns
from shared.records.selection import Selection
from shared.records.where import Where
from shared.rpc.messages import GetRequest, QueryRequest, Shard
from shared.rpc.search_messages import (
    FrequenciesRequest,
    FrequenciesResponse,
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
from shared.search.execution import execute_search, sparse_arrays
from shared.search.model import Dense, Knn, OrderKey
from shared.search.ordering import Sortable, sortable, sorted_indices
from shared.search.ranking import Neighbours, nearest_of
from shared.search.row_order import take_rows
from shared.search.source import Arguments, Frequencies, Result, Tally, WantedColumns
from shared.vectors.arrays import Distances, Positions, SparseIndices

VALUE_BYTES: Final = 256
"""Memory of a value that is counted for a facet, or of a record that is sorted by its metadata."""


def search_answer(context: ReadContext, request: SearchRequest) -> bytes:
    """The body of the client's answer to whole searches. Raises InvalidArgument for a query of another dimension."""
    source = ReadViewSource(context.view, request.shard)
    return encode_searches([_completed(execute_search(source, search)) for search in request.searches])


def nearest_answer(context: ReadContext, request: NearestRequest) -> NearestResponse:
    """The nearest records of each vector. Raises InvalidArgument for a query of another dimension."""
    found = ReadViewSource(context.view, request.shard).find_nearest(request.where, request.knns)
    return NearestResponse(
        counts=[len(neighbours.inserted) for neighbours in found],
        distances=b"".join(neighbours.distances.astype("<f4", copy=False).tobytes() for neighbours in found),
        inserted=b"".join(neighbours.inserted.astype("<i8", copy=False).tobytes() for neighbours in found),
        position=context.view.position,
    )


def frequencies_answer(context: ReadContext, request: FrequenciesRequest) -> FrequenciesResponse:
    """Document frequencies of the terms of sparse vectors."""
    terms = [(key, np.frombuffer(indices, "<u4")) for key, indices in zip(request.keys, request.indices, strict=True)]
    found = ReadViewSource(context.view, request.shard).count_frequencies(terms)
    document_frequencies = [counts.astype("<i8", copy=False).tobytes() for counts in found.document_frequencies]
    return FrequenciesResponse(found.records, document_frequencies, context.view.position)


def ordered_answer(context: ReadContext, request: OrderedRequest) -> OrderedResponse:
    """The first records in an order, and the values that they were sorted by."""
    source = ReadViewSource(context.view, request.shard)
    inserted, values = source.sort_records(request.where, request.order_by, request.limit)
    positions = inserted.astype("<i8", copy=False).tobytes()
    return OrderedResponse(positions, values, context.view.position)


def tally_answer(context: ReadContext, request: TallyRequest) -> TallyResponse:
    """How many records match, and how many have each value of some fields."""
    tally = ReadViewSource(context.view, request.shard).count_values(request.where, request.fields)
    facets = [list(tally.facets[field]) for field in request.fields]
    return TallyResponse(tally.count, facets, context.view.position)


class ReadViewSource:
    """The records of a read view as a `shared.search.source.RecordSource`, for a collection that has no other shard.
    Its coroutines never wait. Each has a function that does the work, which the steps above call by themselves.
    """

    def __init__(self, view: ReadView, shard: Shard) -> None:
        self._view = view
        self._shard = shard
        self._last_selected: tuple[Where | None, list[SelectedRows]] | None = None

    # ---- RecordSource

    async def nearest(self, where: Where | None, knns: Sequence[Knn]) -> list[Neighbours]:
        return self.find_nearest(where, knns)

    async def frequencies(self, asked: Sequence[tuple[str, SparseIndices]]) -> Frequencies:
        return self.count_frequencies(asked)

    async def page(
        self, where: Where | None, order_by: Sequence[OrderKey], offset: int, limit: int | None
    ) -> Positions:
        if order_by:
            return self.sort_records(where, order_by, None if limit is None else offset + limit)[0][offset:]
        found = get_records(self._view, GetRequest(self._shard, Selection(where=where), offset, limit, ids=False))
        return np.frombuffer(found.inserted, "<i8")

    async def rows(self, inserted: Positions, wanted: WantedColumns) -> Columns:
        ascending = np.sort(inserted)
        request = GetRequest(
            self._shard,
            documents=wanted.documents,
            metadatas=wanted.metadatas,
            embeddings=wanted.embeddings,
            inserted=ascending.astype("<i8", copy=False).tobytes(),
        )
        return take_rows(get_records(self._view, request).columns, np.searchsorted(ascending, inserted))

    async def tally(self, where: Where | None, fields: Sequence[str]) -> Tally:
        return self.count_values(where, fields)

    async def compute(
        self, size: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        return work(*args, **kwargs)

    # ---- what does the work

    def find_nearest(self, where: Where | None, knns: Sequence[Knn]) -> list[Neighbours]:
        """The nearest matching records of each of `knns`, equal distances by insertion. Raises InvalidArgument for a
        vector of another dimension.
        """
        return [self._find_nearest(where, knn) for knn in work.checked(knns)]

    def count_frequencies(self, terms: Sequence[tuple[str, SparseIndices]]) -> Frequencies:
        """The number of live records, of all, whatever a search filters by, have each index of each (sparse key,
        indices).
        """
        document_frequencies = [np.zeros(len(indices), np.int64) for _, indices in terms]
        for part in self._view.parts:
            for indexed_range in part.indexed_ranges():
                mask = indexed_range.index_mask(part.alive)
                for counts, (key, indices) in zip(document_frequencies, terms, strict=True):
                    index = indexed_range.indexed.sparse(key)
                    if index is not None:
                        np.add(counts, index.document_frequencies(indices, mask), out=counts)
        return Frequencies(sum(part.live_rows for part in self._view.parts), document_frequencies)

    def sort_records(
        self, where: Where | None, order_by: Sequence[OrderKey], limit: int | None
    ) -> tuple[Positions, list[list[Sortable]]]:
        """The first `limit` (None: all) of the matching records, sorted by the fields of `order_by`, ties by insertion:
        the positions at which they were inserted, int64 [n], and for each the values that it is sorted by.
        """
        inserted: list[Positions] = []
        values: list[list[Sortable]] = []
        for selected, indexed_range in self._selected_ranges(where):
            part, mask = selected.part, indexed_range.index_mask(selected.mask)
            rows = np.arange(indexed_range.indexed.rows) if mask is None else np.flatnonzero(mask)
            positions = part.inserted[indexed_range.part_rows(rows)]
            first = first_rows(indexed_range.indexed.metadata, order_by, rows, positions, limit)
            first = indexed_range.part_rows(first)
            work.claim(VALUE_BYTES * len(first))
            inserted.append(part.inserted[first])
            for at in range(0, len(first), work.CHECKED_ITEMS):
                work.check()
                texts = part.texts("metadata", first[at : at + work.CHECKED_ITEMS])
                values += [_sort_values(text, order_by) for text in texts]
        found = np.concatenate([np.empty(0, np.int64), *inserted])
        by_insertion = np.argsort(found)
        values = [values[place] for place in by_insertion.tolist()]
        places = sorted_indices(order_by, values)[:limit]
        return found[by_insertion[np.array(places, np.intp)]], [values[place] for place in places]

    def count_values(self, where: Where | None, fields: Sequence[str]) -> Tally:
        """How many records match, and how many of these have each value of each of the fields."""
        counts: dict[str, dict[tuple[type, Value], int]] = {field: {} for field in fields}
        for selected, indexed_range in self._selected_ranges(where) if fields else ():
            mask = indexed_range.index_mask(selected.mask)
            if mask is None:
                mask = np.ones(indexed_range.indexed.rows, np.bool_)
            for field, into in counts.items():
                counted = value_counts(indexed_range.indexed.metadata, field, mask)
                for value, count in work.checked(_claimed(counted)):
                    typed = (type(value), value)  # in Python 1, 1.0 and True are equal
                    into[typed] = into.get(typed, 0) + count
        facets = {field: [(value, count) for (_, value), count in into.items()] for field, into in counts.items()}
        return Tally(sum(selected.count for selected in self._select(where)), facets)

    # ----

    def _select(self, where: Where | None) -> list[SelectedRows]:
        """The matching rows, part by part. The last ones are kept: the steps of a search have the same filter."""
        if self._last_selected is None or self._last_selected[0] is not where:
            selected = [rows.resolved() for rows in select(self._view, Selection(where=where))]
            self._last_selected = (where, selected)
        return self._last_selected[1]

    def _selected_ranges(self, where: Where | None) -> Iterator[tuple[SelectedRows, IndexedRange]]:
        """The ranges of metadata indexes in which the matching rows lie; parts without a matching row are left out."""
        for selected in self._select(where):
            if selected.count:
                work.scanned(selected.count)
                for indexed_range in selected.part.indexed_ranges():
                    yield selected, indexed_range

    def _find_nearest(self, where: Where | None, knn: Knn) -> Neighbours:
        query = knn.query
        found = self._nearest_dense(where, knn, query) if isinstance(query, Dense) else self._nearest_sparse(where, knn)
        return found if knn.max_distance is None else found.within(knn.max_distance)

    def _nearest_dense(self, where: Where | None, knn: Knn, query: Dense) -> Neighbours:
        dimension = len(query.vector) // 4
        request = QueryRequest(
            self._shard, query.vector, 1, dimension, knn.limit, query.ef_search, Selection(where=where)
        )
        hits = query_nearest(self._view, request)
        return Neighbours(np.frombuffer(hits.inserted, "<i8"), np.frombuffer(hits.distances, "<f4"))

    def _nearest_sparse(self, where: Where | None, knn: Knn) -> Neighbours:
        assert not isinstance(knn.query, Dense)
        query = sparse_arrays(knn)
        inserted: list[Positions] = [np.empty(0, np.int64)]
        distances: list[Distances] = [np.empty(0, np.float32)]
        for selected, indexed_range in self._selected_ranges(where):
            index = indexed_range.indexed.sparse(knn.query.key)
            if index is not None:
                found = index.nearest(query, knn.limit, indexed_range.index_mask(selected.mask))
                inserted.append(selected.part.inserted[indexed_range.part_rows(found.rows)])
                distances.append(found.distances)
        return nearest_of(inserted, distances, knn.limit)


def _claimed(counts: Iterator[tuple[Value, int]]) -> Iterator[tuple[Value, int]]:
    """The counts of values, whose memory is claimed as they come."""
    for number, counted in enumerate(counts):
        if not number % work.CHECKED_ITEMS:
            work.claim(VALUE_BYTES * (work.CHECKED_ITEMS if number else 1))
        yield counted


def _sort_values(metadata_json: str | None, order_by: Sequence[OrderKey]) -> list[Sortable]:
    metadata: Mapping[str, Any] = {} if metadata_json is None else orjson.loads(metadata_json)
    return [sortable(metadata, step.key) for step in order_by]


def _completed(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a search of one read view waits for nothing")
