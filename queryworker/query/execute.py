"""Reads of one view: count, get, query. Pure functions of it; they run in threads."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from queryworker.query.columns import Filled, assemble, encoded_bytes, written_at
from queryworker.query.explain import Trace
from queryworker.query.matches import Matches, of_rows, select
from queryworker.query.nearest import Target, nearest
from queryworker.view.part import ViewPart
from queryworker.view.read_view import ReadView
from shared.errors import InvalidArgument
from shared.records.selection import EVERYTHING
from shared.rpc.messages import CountRequest, CountResponse, GetRequest, GetResponse, QueryRequest, QueryResponse
from shared.vectors.arrays import Distances, Indices, Mask, Positions, RowNumbers
from shared.vectors.distance import Nearest

DECIDED_AT_ONCE: Final = 64
"""So many rows that a filter is open about are decided about at first, and twice as many each next time."""


class Found(NamedTuple):
    """Rows of a view in the order of an answer: number of the part and row in it, parallel."""

    parts: Indices
    rows: RowNumbers


# ---- count


def count(view: ReadView, request: CountRequest) -> CountResponse:
    if request.selection == EVERYTHING:
        return CountResponse(view.live_records, view.position)
    matches = select(view, request.selection)
    return CountResponse(sum(part.settled().matching for part in matches), view.position)


# ---- get


class TooLongError(Exception):
    """The answer would be longer than was said."""


def get(view: ReadView, request: GetRequest, bytes_max: int | None = None) -> GetResponse:
    """Raises TooLongError, before it reads the records, when they have about more than `bytes_max`."""
    trace = Trace()
    if request.inserted is not None:
        matches = _inserted_at(view, np.frombuffer(request.inserted, "<i8"))
        begin, end = 0, None
    else:
        matches = select(view, request.selection)
        begin, end = request.offset, None if request.limit is None else request.offset + request.limit
    trace.ended("filter")
    found = _matching(matches, begin, end, trace)
    trace.ended("search")
    wanted = Filled(request.ids, request.documents, request.metadatas, request.uris, request.embeddings)
    if bytes_max is not None and encoded_bytes(view, found.parts, found.rows, wanted) > bytes_max:
        raise TooLongError
    inserted, columns = assemble(view, found.parts, found.rows, wanted)
    trace.ended("assemble")
    return GetResponse(
        inserted=inserted.astype("<i8", copy=False).tobytes(),
        columns=columns,
        position=view.position,
        explanation=trace.explanation(view, request.shard.shard, matches) if request.explain else None,
        written=written_at(view, found.parts, found.rows).astype("<i8").tobytes() if request.written else None,
    )


def _matching(matches: Sequence[Matches], begin: int, end: int | None, trace: Trace) -> Found:
    """What matches, by insertion, from the place `begin` to the place `end`."""
    undecided = [number for number, part in enumerate(matches) if part.filter_result is not None]
    if undecided and end is not None:
        found = _first(_in_order(matches), matches, end, trace)
        return Found(found.parts[begin:end], found.rows[begin:end])
    for number in undecided:
        trace.part(number).decided += matches[number].matching
    return _in_order([part.settled() for part in matches], begin, end)


def _first(found: Found, matches: Sequence[Matches], count: int, trace: Trace) -> Found:
    """The first `count` that match of those that may: decided about by and by, until there are as many."""
    kept: list[Indices] = []
    at, step = 0, max(DECIDED_AT_ONCE, count)
    while at < len(found.rows) and count > 0:
        places = np.arange(at, min(at + step, len(found.rows)))
        kept.append(places[_decided(found, matches, places, trace)])
        count -= len(kept[-1])
        at, step = at + step, 2 * step
    places = np.concatenate([np.empty(0, np.intp), *kept])
    return Found(found.parts[places], found.rows[places])


def _decided(found: Found, matches: Sequence[Matches], places: Indices, trace: Trace) -> Mask:
    matching = np.ones(len(places), np.bool_)
    for number, part in enumerate(matches):
        if part.filter_result is not None:
            here = np.flatnonzero(found.parts[places] == number)
            matching[here] = part.filter_result.resolve(found.rows[places[here]])
            trace.part(number).decided += len(here)
    return matching


def _in_order(matches: Sequence[Matches], begin: int = 0, end: int | None = None) -> Found:
    """The matching rows by insertion, from the place `begin` to the place `end`."""
    filled = [(number, part) for number, part in enumerate(matches) if part.matching]
    if not filled:
        return Found(np.empty(0, np.intp), np.empty(0, np.int64))
    if len(filled) == 1 and filled[0][1].part.in_insertion_order:  # a page of it is made without the rest
        number, only = filled[0]
        page = only.rows(begin, end)
        return Found(np.full(len(page), number, np.intp), page)
    rows = [part.rows() for _, part in filled]
    parts = np.repeat([number for number, _ in filled], [len(some) for some in rows])
    together = np.concatenate(rows)
    inserted = np.concatenate([part.part.inserted[some] for (_, part), some in zip(filled, rows, strict=True)])
    order = np.argsort(inserted, kind="stable")[begin:end]  # made of ascending runs: merged, not sorted
    return Found(parts[order], together[order])


def _inserted_at(view: ReadView, positions: Positions) -> list[Matches]:
    """The living rows that were inserted at these positions, which ascend; those that are gone are left out."""
    return [of_rows(part, _rows_inserted_at(part, positions)) for part in view.parts]


def _rows_inserted_at(part: ViewPart, positions: Positions) -> RowNumbers:
    if not part.in_insertion_order:
        return np.flatnonzero(np.isin(part.inserted, positions))
    rows: RowNumbers = np.searchsorted(part.inserted, positions)
    inside = rows < part.rows
    rows, positions = rows[inside], positions[inside]
    hit: Mask = part.inserted[rows] == positions  # other parts' positions lead to rows of this one as well
    return rows[hit]


# ---- query


def query(view: ReadView, request: QueryRequest, threads: int = 1) -> QueryResponse:
    """`threads` search graphs at once. Raises InvalidArgument for vectors of another dimension."""
    trace = Trace()
    matches = select(view, request.selection)
    trace.ended("filter")
    hits = _hits(view, matches, [request], 0, trace, threads)
    trace.ended("search")
    response = _response(view, request, hits, request.n_queries)
    trace.ended("assemble")
    if not request.explain:
        return response
    told = trace.explanation(view, request.shard.shard, matches)
    return msgspec.structs.replace(response, explanation=told)


def query_together(view: ReadView, requests: Sequence[QueryRequest]) -> QueryResponse:
    """The answers to queries that differ in their vectors and selections alone, end to end. Those that follow each
    other with the same selection are searched for together. Raises InvalidArgument as `query` does.
    """
    hits: list[_Hits] = []
    queries = 0
    # By their bytes: in Python 1, 1.0 and True are equal, in a filter they are not.
    for _, group in itertools.groupby(requests, key=lambda request: msgspec.msgpack.encode(request.selection)):
        alike = list(group)
        hits += _hits(view, select(view, alike[0].selection), alike, queries, Trace())
        queries += sum(request.n_queries for request in alike)
    return _response(view, requests[0], hits, queries)


class _Hits(NamedTuple):
    """Candidates for all queries from some parts, parallel: the number of the query, where the row is, how far."""

    queries: Indices
    parts: Indices
    rows: RowNumbers
    distances: Distances
    inserted: Positions


def _hits(
    view: ReadView,
    matches: Sequence[Matches],
    requests: Sequence[QueryRequest],
    first: int,
    trace: Trace,
    threads: int = 1,
) -> list[_Hits]:
    """For the vectors of requests that select the same, which are numbered from `first`."""
    asked = requests[0]
    if asked.dimension != view.dimension and any(part.matching for part in matches):
        raise InvalidArgument(
            f"Collection expecting embedding with dimension of {view.dimension}, got {asked.dimension}"
        )
    embeddings = b"".join(request.embeddings for request in requests)
    queries = np.frombuffer(embeddings, "<f4").reshape(sum(request.n_queries for request in requests), asked.dimension)
    hits: list[_Hits] = []
    for number, part in enumerate(matches):
        if part.matching and asked.k:
            target = Target(view.space, part, asked.k, asked.ef_search, threads)
            hits.append(_of_part(view, number, first, nearest(target, queries, trace.part(number))))
    return hits


def _response(view: ReadView, asked: QueryRequest, hits: Sequence[_Hits], queries: int) -> QueryResponse:
    counts, found, distances = _merge(hits, queries, asked.k)
    wanted = Filled(True, asked.documents, asked.metadatas, asked.uris, asked.include_embeddings)
    inserted, columns = assemble(view, found.parts, found.rows, wanted)
    return QueryResponse(
        counts=counts,
        distances=distances.astype("<f4", copy=False).tobytes(),
        inserted=inserted.astype("<i8", copy=False).tobytes(),
        columns=columns,
        position=view.position,
    )


def _of_part(view: ReadView, number: int, first: int, nearest_of_each: Sequence[Nearest]) -> _Hits:
    rows = np.concatenate([hits.rows for hits in nearest_of_each])
    return _Hits(
        np.repeat(np.arange(first, first + len(nearest_of_each)), [len(hits.rows) for hits in nearest_of_each]),
        np.full(len(rows), number, np.intp),
        rows,
        np.concatenate([hits.distances for hits in nearest_of_each]),
        view.parts[number].inserted[rows],
    )


def _merge(hits: Sequence[_Hits], queries: int, k: int) -> tuple[list[int], Found, Distances]:
    """The k nearest of all parts for each query, end to end, equal distances by insertion: how many each query has,
    where they are, how far.
    """
    if not hits:
        return [0] * queries, Found(np.empty(0, np.intp), np.empty(0, np.int64)), np.empty(0, np.float32)
    all_ = hits[0] if len(hits) == 1 else _Hits(*map(np.concatenate, zip(*hits, strict=True)))
    order = np.lexsort((all_.inserted, all_.distances, all_.queries))
    found = np.bincount(all_.queries, minlength=queries)
    place = np.arange(len(order)) - np.repeat(np.cumsum(found) - found, found)
    order = order[place < k]
    return np.minimum(found, k).tolist(), Found(all_.parts[order], all_.rows[order]), all_.distances[order]
