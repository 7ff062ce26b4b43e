"""Reads of one snapshot: count, get, query. Pure functions of it; they run in threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from queryworker.columns import Filled, assemble
from queryworker.filter import Rows
from queryworker.matches import Matches, of_rows, select
from queryworker.parts import ViewPart
from queryworker.search import Target, Trace, nearest
from queryworker.text import Mask
from queryworker.view import Snapshot
from shared.errors import InvalidArgument
from shared.rpc.messages import (
    CountRequest,
    CountResponse,
    GetRequest,
    GetResponse,
    QueryRequest,
    QueryResponse,
)

DECIDED_AT_ONCE: Final = 64
"""So many rows that a filter is open about are decided about at first, and twice as many each next time."""


class Found(NamedTuple):
    """Rows of a snapshot in the order of an answer: number of the part and row in it, parallel."""

    parts: npt.NDArray[np.intp]
    rows: Rows


# ---- count


def count(snapshot: Snapshot, request: CountRequest) -> CountResponse:
    matches = select(snapshot, request.selection)
    return CountResponse(sum(part.settled().matching for part in matches), snapshot.position)


# ---- get


def get(snapshot: Snapshot, request: GetRequest) -> GetResponse:
    if request.inserted is not None:
        found = _inserted_at(snapshot, np.frombuffer(request.inserted, "<i8"))
    else:
        end = None if request.limit is None else request.offset + request.limit
        found = _matching(select(snapshot, request.selection), request.offset, end)
    wanted = Filled(request.ids, request.documents, request.metadatas, request.uris, request.embeddings)
    inserted, columns = assemble(snapshot, found.parts, found.rows, wanted)
    return GetResponse(inserted.astype("<i8", copy=False).tobytes(), columns, snapshot.position)


def _matching(matches: Sequence[Matches], begin: int, end: int | None) -> Found:
    """What matches, by insertion, from the place `begin` to the place `end`."""
    if end is None:
        matches = [part.settled() for part in matches]
    found = _in_order(matches)
    if end is not None and any(part.verdict is not None for part in matches):
        found = _first(found, matches, end)
    return Found(found.parts[begin:end], found.rows[begin:end])


def _first(found: Found, matches: Sequence[Matches], count: int) -> Found:
    """The first `count` that match of those that may: decided about by and by, until there are as many."""
    kept: list[npt.NDArray[np.intp]] = []
    at, step = 0, max(DECIDED_AT_ONCE, count)
    while at < len(found.rows) and count > 0:
        places = np.arange(at, min(at + step, len(found.rows)))
        kept.append(places[_decided(found, matches, places)])
        count -= len(kept[-1])
        at, step = at + step, 2 * step
    places = np.concatenate([np.empty(0, np.intp), *kept])
    return Found(found.parts[places], found.rows[places])


def _decided(found: Found, matches: Sequence[Matches], places: npt.NDArray[np.intp]) -> Mask:
    matching = np.ones(len(places), np.bool_)
    for number, part in enumerate(matches):
        here = np.flatnonzero(found.parts[places] == number) if part.verdict is not None else ()
        if part.verdict is not None and len(here):
            matching[here] = part.verdict.decide(found.rows[places[here]])
    return matching


def _in_order(matches: Sequence[Matches]) -> Found:
    """All matching rows by insertion."""
    filled = [(number, part) for number, part in enumerate(matches) if part.matching]
    if not filled:
        return Found(np.empty(0, np.intp), np.empty(0, np.int64))
    rows = [part.rows() for _, part in filled]
    parts = np.repeat([number for number, _ in filled], [len(some) for some in rows])
    together = np.concatenate(rows)
    if len(filled) == 1 and filled[0][1].part.ordered:
        return Found(parts, together)
    inserted = np.concatenate([part.part.inserted[some] for (_, part), some in zip(filled, rows, strict=True)])
    order = np.argsort(inserted, kind="stable")  # made of ascending runs: merged, not sorted
    return Found(parts[order], together[order])


def _inserted_at(snapshot: Snapshot, positions: npt.NDArray[np.int64]) -> Found:
    """The living rows that were inserted at these positions, in order; those that are gone are left out."""
    return _in_order([of_rows(part, _rows_inserted_at(part, positions)) for part in snapshot.parts])


def _rows_inserted_at(part: ViewPart, positions: npt.NDArray[np.int64]) -> Rows:
    if not part.ordered:
        return np.flatnonzero(np.isin(part.inserted, positions))
    rows = np.searchsorted(part.inserted, positions)
    rows = rows[rows < part.rows]
    return rows[np.isin(part.inserted[rows], positions)]


# ---- query


class _Hits(NamedTuple):
    """Candidates of one query from one part."""

    part: int
    rows: Rows
    distances: npt.NDArray[np.float32]


def query(snapshot: Snapshot, request: QueryRequest) -> QueryResponse:
    queries = np.frombuffer(request.embeddings, "<f4").reshape(request.n_queries, request.dimension)
    matches = select(snapshot, request.selection)
    if not any(part.matching for part in matches):
        matches = []
    elif request.dimension != snapshot.dimension:
        raise InvalidArgument(
            f"Collection expecting embedding with dimension of {snapshot.dimension}, got {request.dimension}"
        )
    hits: list[list[_Hits]] = [[] for _ in queries]
    for number, part in enumerate(matches):
        if part.matching and request.k:
            target = Target(snapshot.space, part, request.k, request.ef_search)
            for of_query, found in zip(hits, nearest(target, queries, Trace()), strict=True):
                of_query.append(_Hits(number, found.rows, found.distances))
    return _answer(snapshot, request, [_merge(snapshot, of_query, request.k) for of_query in hits])


class _Ranked(NamedTuple):
    """The final hits of one query."""

    found: Found
    distances: npt.NDArray[np.float32]


def _merge(snapshot: Snapshot, hits: Sequence[_Hits], k: int) -> _Ranked:
    """The k nearest of all parts; equal distances by insertion."""
    if not hits:
        return _Ranked(Found(np.empty(0, np.intp), np.empty(0, np.int64)), np.empty(0, np.float32))
    parts = np.repeat([part.part for part in hits], [len(part.rows) for part in hits])
    rows = np.concatenate([part.rows for part in hits])
    measured = np.concatenate([part.distances for part in hits])
    inserted = np.concatenate([snapshot.parts[part.part].inserted[part.rows] for part in hits])
    order = np.lexsort((inserted, measured))[:k]
    return _Ranked(Found(parts[order], rows[order]), measured[order])


def _answer(snapshot: Snapshot, request: QueryRequest, ranked: Sequence[_Ranked]) -> QueryResponse:
    parts = np.concatenate([np.empty(0, np.intp), *(one.found.parts for one in ranked)])
    rows = np.concatenate([np.empty(0, np.int64), *(one.found.rows for one in ranked)])
    measured = np.concatenate([np.empty(0, np.float32), *(one.distances for one in ranked)])
    wanted = Filled(True, request.documents, request.metadatas, request.uris, request.include_embeddings)
    inserted, columns = assemble(snapshot, parts, rows, wanted)
    return QueryResponse(
        counts=[len(one.distances) for one in ranked],
        distances=measured.astype("<f4", copy=False).tobytes(),
        inserted=inserted.astype("<i8", copy=False).tobytes(),
        columns=columns,
        position=snapshot.position,
    )
