"""What goes back over the wire: columns for a frontend that merges them, or the client's own answer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec
import numpy as np

from queryworker.query import execute
from queryworker.query.columns import FLOAT_BYTES
from queryworker.view.read_view import ReadView
from shared.errors import InvalidArgument
from shared.limits import RPC_FRAME_BYTES_MAX
from shared.records.answers import encode_get, encode_query, get_chunks, refuse_unknown_ids
from shared.records.columns import Columns
from shared.records.include import Wanted
from shared.rpc.messages import CountRequest, GetRequest, GetResponse, QueryRequest, QueryResponse

PROCESSORS: Final = os.cpu_count() or 1

VECTORS_PER_THREAD_MIN: Final = 5
"""For fewer, starting another thread takes longer than it saves."""

Explainable = TypeVar("Explainable", GetResponse, QueryResponse)


class Reading(NamedTuple):
    """A view, which worker has it, and how long it took to get it. `bytes_max`: an answer longer than that is not
    to be made here (`execute.TooLongError`).
    """

    view: ReadView
    worker: str
    waited_s: float
    bytes_max: int | None = None


def count(reading: Reading, request: CountRequest) -> bytes:
    return msgspec.msgpack.encode(execute.count(reading.view, request))


def get(reading: Reading, request: GetRequest) -> bytes | Iterator[bytes]:
    """As a whole, or in parts for who takes them. Raises InvalidArgument, before the first part, for vectors that would
    be more than an answer may have.
    """
    found = execute.get(reading.view, request, reading.bytes_max)
    if request.include is None:
        return msgspec.msgpack.encode(_explained(reading, found))
    if not request.in_parts:
        return encode_get(found.columns, Wanted(request.include))
    about = len(found.columns.embeddings or b"") // 4 * FLOAT_BYTES
    if about > RPC_FRAME_BYTES_MAX:
        raise InvalidArgument(f"the answer has about {about} bytes; ask for less")
    return get_chunks(found.columns, Wanted(request.include))


def query_together(reading: Reading, requests: Sequence[QueryRequest]) -> list[bytes]:
    """The answers to queries that differ in their vectors and selections alone. Raises InvalidArgument for a wrong
    dimension, and as `refuse_unknown_ids` says.
    """
    if len(requests) == 1:
        return [_alone(reading, requests[0])]
    found = execute.query_together(reading.view, requests)
    answers: list[bytes] = []
    query = row = 0
    for request in requests:
        counts = found.counts[query : query + request.n_queries]
        rows = slice(row, row + sum(counts))
        answers.append(_answer(request, _share(found, counts, rows)))
        query, row = query + request.n_queries, rows.stop
    return answers


def _alone(reading: Reading, request: QueryRequest) -> bytes:
    """With many vectors of one client, who waits for all of them, several threads search at once. In a batch there
    would be no use in that: others are behind it.
    """
    threads = max(1, min(PROCESSORS, request.n_queries // VECTORS_PER_THREAD_MIN))
    return _answer(request, _explained(reading, execute.query(reading.view, request, threads)))


def _explained(reading: Reading, found: Explainable) -> Explainable:
    """With what only the worker knows, where an explanation was asked for."""
    if found.explanation is None:
        return found
    stages_ms = {"currency": round(reading.waited_s * 1000, 3), **found.explanation.milliseconds}
    told = msgspec.structs.replace(found.explanation, worker=reading.worker, milliseconds=stages_ms)
    return msgspec.structs.replace(found, explanation=told)


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
