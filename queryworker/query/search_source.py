"""Searches over one shard as of one position: whole ones where the shard is the collection, else the steps of which the
frontend makes one over all shards. Pure functions of a view; they run in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import orjson

from queryworker.query import execute
from queryworker.query.answers import Reading
from queryworker.query.fields import first_rows, value_counts
from queryworker.query.matches import Matches, select
from queryworker.view.read_view import ReadView
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


def search(reading: Reading, request: SearchRequest) -> bytes:
    """The body of the client's answer. Raises InvalidArgument for a query of another dimension."""
    source = ReadViewSource(reading.view, request.shard)
    return encode_searches([_completed(execute_search(source, one)) for one in request.searches])


def nearest_step(reading: Reading, request: NearestRequest) -> bytes:
    found = ReadViewSource(reading.view, request.shard).neighbours(request.where, request.knns)
    response = NearestResponse(
        counts=[len(one.inserted) for one in found],
        distances=b"".join(one.distances.astype("<f4", copy=False).tobytes() for one in found),
        inserted=b"".join(one.inserted.astype("<i8", copy=False).tobytes() for one in found),
        position=reading.view.position,
    )
    return msgspec.msgpack.encode(response)


def frequencies_step(reading: Reading, request: FrequenciesRequest) -> bytes:
    asked = [(key, np.frombuffer(part, "<u4")) for key, part in zip(request.keys, request.indices, strict=True)]
    found = ReadViewSource(reading.view, request.shard).counted(asked)
    having = [part.astype("<i8", copy=False).tobytes() for part in found.having]
    return msgspec.msgpack.encode(FrequenciesResponse(found.records, having, reading.view.position))


def ordered_step(reading: Reading, request: OrderedRequest) -> bytes:
    inserted, values = ReadViewSource(reading.view, request.shard).ordered(
        request.where, request.order_by, request.limit
    )
    positions = inserted.astype("<i8", copy=False).tobytes()
    return msgspec.msgpack.encode(OrderedResponse(positions, values, reading.view.position))


def tally_step(reading: Reading, request: TallyRequest) -> bytes:
    tally = ReadViewSource(reading.view, request.shard).tallied(request.where, request.fields)
    facets = [list(tally.facets[field]) for field in request.fields]
    return msgspec.msgpack.encode(TallyResponse(tally.count, facets, reading.view.position))


class ReadViewSource:
    """`shared.search.source.RecordSource` of a collection whose only shard this is. Nothing in it waits."""

    def __init__(self, view: ReadView, shard: Shard) -> None:
        self._view = view
        self._shard = shard
        self._last: tuple[Where | None, list[Matches]] | None = None

    async def nearest(self, where: Where | None, knns: Sequence[Knn]) -> list[Neighbours]:
        return self.neighbours(where, knns)

    async def frequencies(self, asked: Sequence[tuple[str, SparseIndices]]) -> Frequencies:
        return self.counted(asked)

    async def page(
        self, where: Where | None, order_by: Sequence[OrderKey], offset: int, limit: int | None
    ) -> Positions:
        if order_by:
            return self.ordered(where, order_by, None if limit is None else offset + limit)[0][offset:]
        found = execute.get(self._view, GetRequest(self._shard, Selection(where=where), offset, limit, ids=False))
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
        return take_rows(execute.get(self._view, request).columns, np.searchsorted(ascending, inserted))

    async def tally(self, where: Where | None, fields: Sequence[str]) -> Tally:
        return self.tallied(where, fields)

    async def compute(
        self, size: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result:
        return work(*args, **kwargs)

    # ---- the same without waiting

    def neighbours(self, where: Where | None, knns: Sequence[Knn]) -> list[Neighbours]:
        """Raises InvalidArgument for a vector of another dimension."""
        return [self._neighbours(where, knn) for knn in knns]

    def counted(self, asked: Sequence[tuple[str, SparseIndices]]) -> Frequencies:
        """Of all records, whatever a search filters by."""
        view = self._view
        having = [np.zeros(len(indices), np.int64) for _, indices in asked]
        for part in view.parts:
            for piece in part.indexed_ranges():
                mask = piece.index_mask(part.alive)
                for counts, (key, indices) in zip(having, asked, strict=True):
                    index = piece.indexed.sparse(key)
                    if index is not None:
                        np.add(counts, index.having(indices, mask), out=counts)
        return Frequencies(sum(part.live_rows for part in view.parts), having)

    def ordered(
        self, where: Where | None, order_by: Sequence[OrderKey], limit: int | None
    ) -> tuple[Positions, list[list[Sortable]]]:
        """The first `limit` matching records, and what they are sorted by."""
        inserted: list[Positions] = []
        values: list[list[Sortable]] = []
        for one in self._select(where):
            for piece in one.part.indexed_ranges() if one.matching else ():
                mask = piece.index_mask(one.mask)
                there = np.arange(piece.indexed.rows) if mask is None else np.flatnonzero(mask)
                positions = one.part.inserted[piece.part_rows(there)]
                first = piece.part_rows(first_rows(piece.indexed.metadata, order_by, there, positions, limit))
                inserted.append(one.part.inserted[first])
                values += [_values(text, order_by) for text in one.part.texts("metadata", first)]
        together = np.concatenate([np.empty(0, np.int64), *inserted])
        by_insertion = np.argsort(together)
        values = [values[place] for place in by_insertion.tolist()]
        places = sorted_indices(order_by, values)[:limit]
        return together[by_insertion[np.array(places, np.intp)]], [values[place] for place in places]

    def tallied(self, where: Where | None, fields: Sequence[str]) -> Tally:
        matches = self._select(where)
        counts: dict[str, dict[tuple[type, Value], int]] = {field: {} for field in fields}
        for one in matches:
            for piece in one.part.indexed_ranges() if one.matching and fields else ():
                mask = piece.index_mask(one.mask)
                if mask is None:
                    mask = np.ones(piece.indexed.rows, np.bool_)
                for field, into in counts.items():
                    for value, count in value_counts(piece.indexed.metadata, field, mask):
                        typed = (type(value), value)
                        into[typed] = into.get(typed, 0) + count
        facets = {field: [(value, count) for (_, value), count in into.items()] for field, into in counts.items()}
        return Tally(sum(one.matching for one in matches), facets)

    # ----

    def _select(self, where: Where | None) -> list[Matches]:
        if self._last is None or self._last[0] is not where:
            self._last = (where, [one.settled() for one in select(self._view, Selection(where=where))])
        return self._last[1]

    def _neighbours(self, where: Where | None, knn: Knn) -> Neighbours:
        found = self._dense(where, knn, knn.query) if isinstance(knn.query, Dense) else self._sparse(where, knn)
        return found if knn.max_distance is None else found.within(knn.max_distance)

    def _dense(self, where: Where | None, knn: Knn, query: Dense) -> Neighbours:
        request = QueryRequest(
            self._shard, query.vector, 1, len(query.vector) // 4, knn.limit, query.ef_search, Selection(where=where)
        )
        hits = execute.query(self._view, request)
        return Neighbours(np.frombuffer(hits.inserted, "<i8"), np.frombuffer(hits.distances, "<f4"))

    def _sparse(self, where: Where | None, knn: Knn) -> Neighbours:
        assert not isinstance(knn.query, Dense)
        query = sparse_arrays(knn)
        inserted: list[Positions] = [np.empty(0, np.int64)]
        distances: list[Distances] = [np.empty(0, np.float32)]
        for one in self._select(where):
            for piece in one.part.indexed_ranges() if one.matching else ():
                index = piece.indexed.sparse(knn.query.key)
                if index is not None:
                    found = index.nearest(query, knn.limit, piece.index_mask(one.mask))
                    inserted.append(one.part.inserted[piece.part_rows(found.rows)])
                    distances.append(found.distances)
        return nearest_of(inserted, distances, knn.limit)


def _values(text: str | None, order_by: Sequence[OrderKey]) -> list[Sortable]:
    metadata: Mapping[str, Any] = {} if text is None else orjson.loads(text)
    return [sortable(metadata, step.key) for step in order_by]


def _completed(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """What a coroutine returns that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        result: Result = stop.value
        return result
    coroutine.close()
    raise RuntimeError("a search of one view waits for nothing")
