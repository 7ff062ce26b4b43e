"""Answers to counts, gets and queries: columns for a frontend that merges several shards, or the body that the client
gets where the shard is the whole collection.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from queryworker.query.columns import ViewRows, assemble, encoded_bytes
from queryworker.query.get import AnswerTooLongError, count_records, find_rows, get_records, requested_columns
from queryworker.query.knn import query_batch, query_nearest
from queryworker.view.read_view import ReadView
from shared.errors import InvalidArgument
from shared.limits import RPC_FRAME_BYTES_MAX
from shared.records.answers import encode_get, encode_query, refuse_unknown_ids
from shared.records.chunked_answers import get_chunks
from shared.records.columns import Columns
from shared.records.include import Wanted
from shared.rpc.messages import CountRequest, CountResponse, GetRequest, GetResponse, QueryRequest, QueryResponse

PROCESSORS: Final = os.cpu_count() or 1

VECTORS_PER_THREAD_MIN: Final = 5
"""A thread more is started for so many vectors of a query: for fewer, starting it takes longer than it saves."""

WHOLE_BYTES_MAX: Final = 256 * 1024
"""An answer of about so many bytes is written at once, though its caller takes pieces."""

Explainable = TypeVar("Explainable", GetResponse, QueryResponse)


class ReadContext(NamedTuple):
    """The source of answers: a read view, the name of the worker that has it, and how long the currency check
    took that made it, waiting included. An answer of more than about `bytes_max` bytes is not made
    (`queryworker.query.get.AnswerTooLongError`).
    """

    view: ReadView
    worker: str
    currency_s: float
    bytes_max: int | None = None


def count_answer(context: ReadContext, request: CountRequest) -> CountResponse:
    """The number of records that the request selects."""
    return count_records(context.view, request)


def get_answer(context: ReadContext, request: GetRequest) -> GetResponse | bytes | Iterator[bytes]:
    """A response, or the client's body where the request has its `include` list: as a whole, or, when it is long and
    the request allows that, as an iterator over its pieces. Raises InvalidArgument, before the first piece,
    for an answer that would be longer than an answer may be, and AnswerTooLongError.
    """
    if request.include is not None and request.in_parts:
        return _body_or_pieces(context, request, Wanted(request.include))
    found = get_records(context.view, request, context.bytes_max)
    if request.include is None:
        return _explained(context, found)
    return encode_get(found.columns, Wanted(request.include))


def _body_or_pieces(context: ReadContext, request: GetRequest, wanted: Wanted) -> bytes | Iterator[bytes]:
    view, refs, requested = context.view, find_rows(context.view, request), requested_columns(request)
    about = encoded_bytes(view, refs, requested)
    if context.bytes_max is not None and about > context.bytes_max:
        raise AnswerTooLongError
    if about > RPC_FRAME_BYTES_MAX:
        raise InvalidArgument(f"the answer has about {about} bytes; ask for less")
    if about <= WHOLE_BYTES_MAX:
        return encode_get(assemble(view, refs, requested)[1], wanted)
    return get_chunks(ViewRows(view, refs), wanted)


def query_answers(context: ReadContext, requests: Sequence[QueryRequest]) -> list[QueryResponse | bytes]:
    """The answers to requests that differ in their vectors and selections alone: each a response, or the client's body
    where the request has its `include` list. Raises InvalidArgument for vectors of another dimension,
    and as `refuse_unknown_ids` says.
    """
    if len(requests) == 1:
        return [_single_answer(context, requests[0])]
    found = query_batch(context.view, requests)
    answers: list[QueryResponse | bytes] = []
    query = row = 0
    for request in requests:
        counts = found.counts[query : query + request.n_queries]
        rows = slice(row, row + sum(counts))
        answers.append(_response_or_body(request, _share(found, counts, rows)))
        query, row = query + request.n_queries, rows.stop
    return answers


def _single_answer(context: ReadContext, request: QueryRequest) -> QueryResponse | bytes:
    """With many vectors of one client, which waits for all of them, several threads search a graph at once. In a batch
    of requests there would be no use in that: other requests wait for the threads.
    """
    threads = max(1, min(PROCESSORS, request.n_queries // VECTORS_PER_THREAD_MIN))
    return _response_or_body(request, _explained(context, query_nearest(context.view, request, threads)))


def _explained(context: ReadContext, found: Explainable) -> Explainable:
    """The response with what only the worker knows, where an explanation was asked for."""
    if found.explanation is None:
        return found
    stages_ms = {"currency": round(context.currency_s * 1000, 3), **found.explanation.milliseconds}
    explanation = msgspec.structs.replace(found.explanation, worker=context.worker, milliseconds=stages_ms)
    return msgspec.structs.replace(found, explanation=explanation)


def _response_or_body(request: QueryRequest, found: QueryResponse) -> QueryResponse | bytes:
    if request.include is None:
        return found
    refuse_unknown_ids(request.selection, request.k, found.columns)
    distances = np.frombuffer(found.distances, "<f4")
    return encode_query(found.counts, distances, found.columns, Wanted(request.include))


def _share(found: QueryResponse, counts: list[int], rows: slice) -> QueryResponse:
    """The rows of a batch's response that belong to one of its requests, which has `counts` hits per vector."""
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
