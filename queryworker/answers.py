"""What goes back over the wire: columns for a frontend that merges them, or the client's own answer."""

from __future__ import annotations

import msgspec
import numpy as np

from queryworker import execute
from queryworker.view import Snapshot
from shared.include import Wanted
from shared.record_answers import encode_get, encode_query, refuse_unknown_ids
from shared.rpc.messages import CountRequest, GetRequest, QueryRequest


def count(snapshot: Snapshot, request: CountRequest) -> bytes:
    return msgspec.msgpack.encode(execute.count(snapshot, request))


def get(snapshot: Snapshot, request: GetRequest) -> bytes:
    found = execute.get(snapshot, request)
    if request.include is None:
        return msgspec.msgpack.encode(found)
    return encode_get(found.columns, Wanted(request.include))


def query(snapshot: Snapshot, request: QueryRequest) -> bytes:
    """Raises InvalidArgument for a wrong dimension, and as `refuse_unknown_ids` says."""
    found = execute.query(snapshot, request)
    if request.include is None:
        return msgspec.msgpack.encode(found)
    refuse_unknown_ids(request.selection, request.k, found.columns)
    return encode_query(found.counts, np.frombuffer(found.distances, "<f4"), found.columns, Wanted(request.include))
