"""Hedging: asking a second worker for what a first one is slow to answer, and when not to.

A hedge helps when one worker is slow and others are not. When all of them are slow it makes them slower: every call
would be made twice. So a hedge is refused
  * when the call is costly, since it is slow because it is large, and would be as slow elsewhere (`estimated_rows`);
  * when the hedges of the last seconds are a certain share of the calls already (`HedgeBudget`), as in the retry
    budgets of Finagle and Envoy and the retry throttling of gRPC.

Going on to another worker after one has failed, or has left the cluster, is no hedge. Everything here is pure: the time
comes in as an argument.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

from shared.records.selection import EVERYTHING, Selection
from shared.records.where import All, AnyOf, DocumentContains, DocumentRegex, IdIn, MetadataIn, Where
from shared.rpc.messages import CountRequest, GetRequest, QueryRequest
from shared.rpc.query_worker_methods import ReadRequest
from shared.rpc.search_messages import (
    FrequenciesRequest,
    NearestRequest,
    OrderedRequest,
    SearchRequest,
    TallyRequest,
)
from shared.search.model import Dense, Knn, Search

HEDGE_PERCENT_MAX: Final = 5.0
"""Most calls of a hundred that are hedged, unless a setting says otherwise."""

WINDOW_S: Final = 10
"""Length, in seconds, of the window in which calls and hedges are counted."""

HEDGES_MIN: Final = 1
"""Hedges in a window that are allowed however few calls there are."""

COSTLY_ROWS: Final = 2_000
"""Estimated rows from which on a call is costly: about twenty queries at the usual search effort, or a page of two
thousand records."""

_POSITION_BYTES: Final = 8
_INDEX_BYTES: Final = 4


@dataclass(slots=True)
class _Second:
    """Counts of one second of the clock."""

    number: int
    calls: int = 0
    hedges: int = 0


class HedgeBudget:
    """Allows hedges up to `percent` of the calls of the last `WINDOW_S` seconds, and `HEDGES_MIN`; none with 0."""

    def __init__(self, percent: float) -> None:
        self._percent = percent
        self._seconds: deque[_Second] = deque()
        self._calls = 0
        self._hedges = 0

    def count_call(self, now_s: float) -> None:
        """A call begins. `now_s` never goes back."""
        self._second(now_s).calls += 1
        self._calls += 1

    def take(self, now_s: float) -> bool:
        """Whether one more hedge is allowed now; it counts from then on."""
        second = self._second(now_s)
        allowed = max(HEDGES_MIN, math.floor(self._calls * self._percent / 100)) if self._percent else 0
        if self._hedges >= allowed:
            return False
        second.hedges += 1
        self._hedges += 1
        return True

    def _second(self, now_s: float) -> _Second:
        """The present second. Those that have left the window are forgotten."""
        number = math.floor(now_s)
        if not self._seconds or self._seconds[-1].number != number:
            self._seconds.append(_Second(number))
            while self._seconds[0].number <= number - WINDOW_S:
                past = self._seconds.popleft()
                self._calls -= past.calls
                self._hedges -= past.hedges
        return self._seconds[-1]


def costly(request: ReadRequest) -> bool:
    """Whether a call is so large that asking a second worker would cost more than it saves."""
    return estimated_rows(request) >= COSTLY_ROWS


def estimated_rows(request: ReadRequest) -> float:
    """About how many rows a worker has to look at one by one for this request, by what the request says; infinite
    when that depends on the shard's size. Indexes answer metadata filters: each operand counts as a row, and so does
    each id.
    """
    if isinstance(request, QueryRequest) and request.selection == EVERYTHING:  # most calls: found at once
        return request.n_queries * max(request.k, request.ef_search)
    return _operands(request) + _looked_at(request)


def _operands(request: ReadRequest) -> int:
    """Values that are looked up in indexes before any row is looked at."""
    match request:
        case CountRequest(selection=selection) | GetRequest(selection=selection) | QueryRequest(selection=selection):
            return _compared(selection.where) + len(selection.ids or ())
        case SearchRequest(searches=searches):
            return sum(_compared(search.where) for search in searches)
        case NearestRequest(where=where) | OrderedRequest(where=where) | TallyRequest(where=where):
            return _compared(where)
    return 0


def _compared(where: Where | None) -> int:
    match where:
        case MetadataIn(values=values):
            return len(values)
        case IdIn(ids=ids):
            return len(ids)
        case All(clauses=clauses) | AnyOf(clauses=clauses):
            return sum(map(_compared, clauses))
    return int(where is not None)


def _looked_at(request: ReadRequest) -> float:
    match request:
        case CountRequest(selection=selection):
            return 0 if not _reads_documents(selection.where) else math.inf
        case GetRequest(inserted=bytes(inserted)):
            return len(inserted) / _POSITION_BYTES
        case GetRequest(selection=selection, limit=limit):
            return _selected(selection, limit)
        case QueryRequest(selection=selection, n_queries=queries, k=k, ef_search=ef_search):
            return math.inf if _reads_documents(selection.where) else queries * max(k, ef_search)
        case SearchRequest(searches=searches):
            return sum(_searched(search) for search in searches)
        case NearestRequest(where=where, knns=knns):
            return math.inf if _reads_documents(where) else sum(_nearest(knn) for knn in knns)
        case FrequenciesRequest(indices=indices):
            return sum(len(each) for each in indices) / _INDEX_BYTES
        case OrderedRequest(where=where, order_by=order_by, limit=limit):
            return math.inf if order_by else _selected(Selection(where=where), limit)
        case TallyRequest(where=where, fields=fields):
            return math.inf if fields or _reads_documents(where) else 0


def _selected(selection: Selection, limit: int | None) -> float:
    """Rows of a page of the selection."""
    if _reads_documents(selection.where):
        return math.inf
    found = math.inf if selection.ids is None else len(selection.ids)
    return found if limit is None else min(found, limit)


def _searched(search: Search) -> float:
    """The values of facets are counted over all matching records, and so is what is sorted without a rank; a rank gives
    values to the neighbours that it asks for.
    """
    if search.facets or _reads_documents(search.where):
        return math.inf
    if search.rank is None:
        return math.inf if search.order_by or search.limit is None else search.limit
    candidates = sum(_nearest(knn) for knn in search.knns)
    return candidates if search.limit is None else candidates + search.limit


def _nearest(knn: Knn) -> int:
    return max(knn.limit, knn.query.ef_search) if isinstance(knn.query, Dense) else knn.limit


def _reads_documents(where: Where | None) -> bool:
    """Whether the filter may have to read every document. Its depth is bounded where it is parsed."""
    match where:
        case DocumentContains() | DocumentRegex():
            return True
        case All(clauses=clauses) | AnyOf(clauses=clauses):
            return any(_reads_documents(clause) for clause in clauses)
    return False
