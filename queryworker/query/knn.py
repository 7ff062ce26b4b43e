"""Query: the k nearest of the records that a request selects, over all parts of a read view.

Each part is searched by itself (`queryworker.query.part_knn`); the hits of all parts are merged by exact distance,
equal distances by insertion.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

import msgspec
import numpy as np

from queryworker.query.columns import NO_ROWS, RequestedColumns, RowRefs, assemble, claim_values, objects_bytes
from queryworker.query.part_knn import PartSearch, nearest_in_part
from queryworker.query.selected_rows import SelectedRows, select
from queryworker.query.stats import ExecutionStats
from queryworker.view.read_view import ReadView
from shared.errors import InvalidArgument
from shared.process import work
from shared.rpc.messages import QueryRequest, QueryResponse
from shared.vectors.arrays import Distances, Indices, Positions, RowNumbers
from shared.vectors.distance import Nearest

MERGED_HITS: Final = 256 * 1024
"""About how many hits of all parts are searched for before they are merged: some 50 ms of merging. A request for more
is searched block by block of its vectors, so that what is in memory beside the answer does not grow with it.
"""

HIT_BYTES: Final = 32
"""Memory of a hit beside its record: its part, its row and its distance, and what the answer has of them."""


def query_nearest(view: ReadView, request: QueryRequest, threads: int = 1) -> QueryResponse:
    """The nearest records to each vector of the request; `threads` threads search a graph at once. Raises
    InvalidArgument for vectors of another dimension.
    """
    stats = ExecutionStats()
    selected = select(view, request.selection)
    stats.stage_ended("filter")
    found = sum(min(rows.count, request.k) for rows in selected)
    _claim_hits(request, request.n_queries, selected)
    blocks: list[_Merged] = []
    step = max(threads, MERGED_HITS // max(1, found))
    for first in range(0, request.n_queries, step):
        block = _slice_of(request, first, first + step)
        hits = _search_parts(view, selected, [block], 0, stats, threads)
        blocks.append(_merge(hits, block.n_queries, block.k))
    merged = _joined(blocks)
    stats.stage_ended("search")
    response = _response(view, request, merged)
    stats.stage_ended("assemble")
    if not request.explain:
        return response
    explanation = stats.explanation(view, request.shard.shard, selected)
    return msgspec.structs.replace(response, explanation=explanation)


def query_batch(view: ReadView, requests: Sequence[QueryRequest]) -> QueryResponse:
    """The answers to requests that differ in their vectors and selections alone, one after the other in one response.
    Requests that follow each other with the same selection are searched for together. Raises InvalidArgument for
    vectors of another dimension.
    """
    hits: list[_Hits] = []
    queries = 0
    # By their bytes: in Python 1, 1.0 and True are equal, in a filter they are not.
    for _, group in itertools.groupby(requests, key=lambda request: msgspec.msgpack.encode(request.selection)):
        alike = list(group)
        selected, count = select(view, alike[0].selection), sum(request.n_queries for request in alike)
        _claim_hits(alike[0], count, selected)
        hits += _search_parts(view, selected, alike, queries, ExecutionStats())
        queries += count
    return _response(view, requests[0], _merge(hits, queries, requests[0].k))


def _claim_hits(request: QueryRequest, queries: int, selected: Sequence[SelectedRows]) -> None:
    """Claims the memory of what so many vectors find at most, before any of it is searched for."""
    most = queries * min(request.k, sum(rows.count for rows in selected))
    work.claim(HIT_BYTES * most + objects_bytes(most, _requested(request)))


def _requested(request: QueryRequest) -> RequestedColumns:
    return RequestedColumns(True, request.documents, request.metadatas, request.uris, request.include_embeddings)


class _Hits(NamedTuple):
    """Candidates for some queries from one part or more, parallel: the number of the query, the number of the part, the
    row in it, the distance, and the position at which the record was inserted.
    """

    queries: Indices
    parts: Indices
    rows: RowNumbers
    distances: Distances
    inserted: Positions


class _Merged(NamedTuple):
    """The nearest of all parts: how many each query has, and, query after query, where they are and how far."""

    counts: list[int]
    found: RowRefs
    distances: Distances


def _slice_of(request: QueryRequest, begin: int, end: int) -> QueryRequest:
    """The request with its `begin`-th to `end`-th vectors alone."""
    if begin == 0 and end >= request.n_queries:
        return request
    width = 4 * request.dimension
    embeddings = request.embeddings[width * begin : width * end]
    return msgspec.structs.replace(request, embeddings=embeddings, n_queries=min(end, request.n_queries) - begin)


def _joined(blocks: Sequence[_Merged]) -> _Merged:
    """The results of consecutive queries as one."""
    if len(blocks) == 1:
        return blocks[0]
    found = [block.found for block in blocks]
    return _Merged(
        [count for block in blocks for count in block.counts],
        RowRefs(
            np.concatenate([NO_ROWS.parts, *(refs.parts for refs in found)]),
            np.concatenate([NO_ROWS.rows, *(refs.rows for refs in found)]),
        ),
        np.concatenate([np.empty(0, np.float32), *(block.distances for block in blocks)]),
    )


def _search_parts(
    view: ReadView,
    selected: Sequence[SelectedRows],
    requests: Sequence[QueryRequest],
    first_query: int,
    stats: ExecutionStats,
    threads: int = 1,
) -> list[_Hits]:
    """The nearest in each part to the vectors of requests with the same selection, numbered from `first_query`."""
    like = requests[0]
    if like.dimension != view.dimension and any(rows.count for rows in selected):
        raise InvalidArgument(
            f"Collection expecting embedding with dimension of {view.dimension}, got {like.dimension}"
        )
    embeddings = b"".join(request.embeddings for request in requests)
    queries = np.frombuffer(embeddings, "<f4").reshape(sum(request.n_queries for request in requests), like.dimension)
    hits: list[_Hits] = []
    for number, rows in enumerate(selected):
        if rows.count and like.k:
            search = PartSearch(view.space, rows, like.k, like.ef_search, threads)
            hits.append(_part_hits(view, number, first_query, nearest_in_part(search, queries, stats.part(number))))
    return hits


def _part_hits(view: ReadView, number: int, first_query: int, nearest: Sequence[Nearest]) -> _Hits:
    """The rows found in the part with this number, for consecutive queries."""
    counts = [len(found.rows) for found in nearest]
    rows = np.concatenate([found.rows for found in nearest])
    return _Hits(
        np.repeat(np.arange(first_query, first_query + len(nearest)), counts),
        np.full(len(rows), number, np.intp),
        rows,
        np.concatenate([found.distances for found in nearest]),
        view.parts[number].inserted[rows],
    )


def _response(view: ReadView, request: QueryRequest, merged: _Merged) -> QueryResponse:
    counts, found, distances = merged
    requested = _requested(request)
    claim_values(view, found, requested, as_json=request.include is not None)
    inserted, columns = assemble(view, found, requested)
    return QueryResponse(
        counts=counts,
        distances=distances.astype("<f4", copy=False).tobytes(),
        inserted=inserted.astype("<i8", copy=False).tobytes(),
        columns=columns,
        position=view.position,
    )


def _merge(hits: Sequence[_Hits], queries: int, k: int) -> _Merged:
    """The k nearest of all parts for each of so many queries, equal distances by insertion."""
    work.check()
    if not hits:
        return _Merged([0] * queries, NO_ROWS, np.empty(0, np.float32))
    all_ = hits[0] if len(hits) == 1 else _Hits(*map(np.concatenate, zip(*hits, strict=True)))
    order = np.lexsort((all_.inserted, all_.distances, all_.queries))
    found = np.bincount(all_.queries, minlength=queries)
    rank = np.arange(len(order)) - np.repeat(np.cumsum(found) - found, found)
    order = order[rank < k]
    counts: list[int] = np.minimum(found, k).tolist()
    return _Merged(counts, RowRefs(all_.parts[order], all_.rows[order]), all_.distances[order])
