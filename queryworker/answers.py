"""What goes back over the wire: columns for a frontend that merges them, or the client's own answer."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np

from queryworker import execute
from queryworker.view import Snapshot
from shared.include import Wanted
from shared.record_answers import encode_get, encode_query, refuse_unknown_ids
from shared.rpc.messages import Columns, CountRequest, GetRequest, QueryRequest, QueryResponse


def count(snapshot: Snapshot, request: CountRequest) -> bytes:
    return msgspec.msgpack.encode(execute.count(snapshot, request))


def get(snapshot: Snapshot, request: GetRequest) -> bytes:
    found = execute.get(snapshot, request)
    if request.include is None:
        return msgspec.msgpack.encode(found)
    return encode_get(found.columns, Wanted(request.include))


def query_together(snapshot: Snapshot, requests: Sequence[QueryRequest]) -> list[bytes]:
    """The answers to queries that differ in their vectors alone. Raises InvalidArgument for a wrong dimension, and as
    `refuse_unknown_ids` says.
    """
    if len(requests) == 1:
        return [_answer(requests[0], execute.query(snapshot, requests[0]))]
    as_one = msgspec.structs.replace(
        requests[0],
        embeddings=b"".join(request.embeddings for request in requests),
        n_queries=sum(request.n_queries for request in requests),
    )
    found = execute.query(snapshot, as_one)
    answers: list[bytes] = []
    query = row = 0
    for request in requests:
        counts = found.counts[query : query + request.n_queries]
        rows = slice(row, row + sum(counts))
        answers.append(_answer(request, _share(found, counts, rows)))
        query, row = query + request.n_queries, rows.stop
    return answers


def _answer(request: QueryRequest, found: QueryResponse) -> bytes:
    if request.include is None:
        return msgspec.msgpack.encode(found)
    refuse_unknown_ids(request.selection, request.k, found.columns)
    distances = np.frombuffer(found.distances, "<f4")
    return encode_query(found.counts, distances, found.columns, Wanted(request.include))


def _share(found: QueryResponse, counts: list[int], rows: slice) -> QueryResponse:
    """The part of a common answer that belongs to one of the requests."""
    columns = found.columns
    width = 4 * columns.dimension
    return QueryResponse(
        counts,
        found.distances[4 * rows.start : 4 * rows.stop],
        found.inserted[8 * rows.start : 8 * rows.stop],
        Columns(
            columns.ids[rows],
            None if columns.documents is None else columns.documents[rows],
            None if columns.metadatas is None else columns.metadatas[rows],
            None if columns.uris is None else columns.uris[rows],
            None if columns.embeddings is None else columns.embeddings[width * rows.start : width * rows.stop],
            columns.dimension,
        ),
        found.position,
    )
