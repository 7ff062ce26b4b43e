"""Reads of one snapshot: count, get, query. Pure functions of it; they run in threads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from prometheus_client import Counter

from queryworker.columns import Filled, assemble
from queryworker.parts import Mask, Rows, Vectors, ViewPart
from queryworker.planner import GraphSearch, plan
from queryworker.view import Snapshot
from shared.distance import Nearest, distances, nearest_many
from shared.errors import InvalidArgument
from shared.model import Space
from shared.rpc.messages import (
    CountRequest,
    CountResponse,
    GetRequest,
    GetResponse,
    QueryRequest,
    QueryResponse,
    Selection,
)

PLANS: Final = Counter("polychrome_queryworker_plans", "Searches of one vector in one part, by plan.", ["plan"])
_SCANS = PLANS.labels("scan")
_GRAPHS = PLANS.labels("graph")
_SCANS_AFTER_GRAPH = PLANS.labels("scan_after_graph")


class Matches(NamedTuple):
    """The rows of a part that a selection means. `mask` None: all of them."""

    part: ViewPart
    mask: Mask | None
    matching: int

    def rows(self) -> Rows:
        """Ascending."""
        if self.mask is None:
            return np.arange(self.part.rows)
        return np.flatnonzero(self.mask)


class Found(NamedTuple):
    """Rows of a snapshot in the order of an answer: number of the part and row in it, parallel."""

    parts: npt.NDArray[np.intp]
    rows: Rows


def select(snapshot: Snapshot, selection: Selection) -> list[Matches]:
    """What the selection means in each part."""
    if selection.ids is not None:
        return _select_ids(snapshot, selection.ids, selection)
    if selection.where is None:
        return [Matches(part, part.alive, part.living) for part in snapshot.parts]
    return [_matches(part, part.match(selection.where, None)) for part in snapshot.parts]


def _select_ids(snapshot: Snapshot, ids: Sequence[str], selection: Selection) -> list[Matches]:
    found: list[Matches] = []
    for part, rows in zip(snapshot.parts, snapshot.find(ids), strict=True):
        mask = np.zeros(part.rows, np.bool_)
        mask[rows] = True
        if selection.where is not None and len(rows):
            mask = part.match(selection.where, mask)
        found.append(_matches(part, mask))
    return found


def _matches(part: ViewPart, mask: Mask) -> Matches:
    return Matches(part, mask, int(np.count_nonzero(mask)))


# ---- count


def count(snapshot: Snapshot, request: CountRequest) -> CountResponse:
    return CountResponse(sum(part.matching for part in select(snapshot, request.selection)), snapshot.position)


# ---- get


def get(snapshot: Snapshot, request: GetRequest) -> GetResponse:
    if request.inserted is not None:
        found = inserted_at(snapshot, np.frombuffer(request.inserted, "<i8"))
    else:
        limit = None if request.limit is None else request.offset + request.limit
        found = _slice(in_order(select(snapshot, request.selection)), request.offset, limit)
    wanted = Filled(request.ids, request.documents, request.metadatas, request.uris, request.embeddings)
    inserted, columns = assemble(snapshot, found.parts, found.rows, wanted)
    return GetResponse(inserted.astype("<i8", copy=False).tobytes(), columns, snapshot.position)


def _slice(found: Found, begin: int, end: int | None) -> Found:
    return Found(found.parts[begin:end], found.rows[begin:end])


def in_order(matches: Sequence[Matches]) -> Found:
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


def inserted_at(snapshot: Snapshot, positions: npt.NDArray[np.int64]) -> Found:
    """The living rows that were inserted at these positions, in order; those that are gone are left out."""
    matches: list[Matches] = []
    for part in snapshot.parts:
        mask = np.zeros(part.rows, np.bool_)
        mask[_rows_inserted_at(part, positions)] = True
        matches.append(_matches(part, mask if part.alive is None else mask & part.alive))
    return in_order(matches)


def _rows_inserted_at(part: ViewPart, positions: npt.NDArray[np.int64]) -> Rows:
    if not part.ordered:
        return np.flatnonzero(np.isin(part.inserted, positions))
    rows = np.searchsorted(part.inserted, positions)
    rows = rows[rows < part.rows]
    return rows[np.isin(part.inserted[rows], positions)]


# ---- query


class Hits(NamedTuple):
    """Candidates from one part: its number, rows of it and their distances, parallel."""

    part: int
    rows: Rows
    distances: npt.NDArray[np.float32]


def query(snapshot: Snapshot, request: QueryRequest) -> QueryResponse:
    queries = np.frombuffer(request.embeddings, "<f4").reshape(request.n_queries, request.dimension)
    matches = select(snapshot, request.selection)
    if not any(part.matching for part in matches):
        matches = []
    elif request.dimension != snapshot.dimension:
        raise wrong_dimension(snapshot, request.dimension)
    hits: list[list[Hits]] = [[] for _ in queries]
    for number, part in enumerate(matches):
        if part.matching and request.k:
            nearest = _nearest(snapshot.space, queries, part, request.k, request.ef_search)
            for of_query, found in zip(hits, nearest, strict=True):
                of_query.append(Hits(number, found.rows, found.distances))
    return _answer(snapshot, request, [merged(snapshot, of_query, request.k) for of_query in hits])


def wrong_dimension(snapshot: Snapshot, dimension: int) -> InvalidArgument:
    return InvalidArgument(f"Collection expecting embedding with dimension of {snapshot.dimension}, got {dimension}")


def _nearest(space: Space, queries: Vectors, matches: Matches, k: int, ef_search: int) -> list[Nearest]:
    """The min(k, matching) nearest matching rows of one part to each query; distances are exact."""
    part, wanted = matches.part, min(k, matches.matching)
    found: dict[int, Nearest] = {}
    tried = 0
    while len(found) < len(queries):
        missing = [number for number in range(len(queries)) if number not in found]
        chosen = plan(
            rows=part.rows, matching=matches.matching, wanted=wanted, ef_search=ef_search,
            graph=part.graph is not None, tried=tried,
        )  # fmt: skip
        if part.graph is None or not isinstance(chosen, GraphSearch):
            (_SCANS_AFTER_GRAPH if tried else _SCANS).inc(len(missing))
            found.update(zip(missing, _scan(space, queries[missing], matches, wanted), strict=True))
            break
        _GRAPHS.inc(len(missing))
        tried = chosen.beam
        for number, rows in zip(missing, part.graph.search(queries[missing], tried), strict=True):
            matching = rows if matches.mask is None else rows[matches.mask[rows]]
            if len(matching) >= wanted:
                best = matching[:wanted]
                found[number] = Nearest(best, distances(space, queries[number], part.vectors[best]))
    return [found[number] for number in range(len(queries))]


def _scan(space: Space, queries: Vectors, matches: Matches, wanted: int) -> list[Nearest]:
    """Exactly the `wanted` nearest, and a few more where equal distances straddle the end: `merged` cuts."""
    part = matches.part
    rows = None if matches.matching == part.rows else matches.rows()
    # Norms of all rows are worth making only when many of them are compared.
    norms = part.norms(make=8 * matches.matching > part.rows)

    def nearest(vectors: Vectors, k: int) -> list[Nearest]:
        return nearest_many(space, vectors, part.vectors, k, rows=rows, norms=norms)

    if part.ordered:  # of equal distances the lower row comes first, and that is the older one
        return nearest(queries, wanted)
    found = nearest(queries, wanted + 1)
    for number, hits in enumerate(found):
        reach = wanted + 1
        while reach < matches.matching and hits.distances[-1] == hits.distances[wanted - 1]:
            reach = min(2 * reach, matches.matching)
            hits = nearest(queries[number : number + 1], reach)[0]  # noqa: PLW2901 (goes back into the list)
        found[number] = hits
    return found


class Nearby(NamedTuple):
    """Hits in order: rows of a snapshot and their distances, parallel."""

    found: Found
    distances: npt.NDArray[np.float32]


def merged(snapshot: Snapshot, hits: Sequence[Hits], k: int) -> Nearby:
    """The k nearest of all parts; equal distances by insertion."""
    if not hits:
        return Nearby(Found(np.empty(0, np.intp), np.empty(0, np.int64)), np.empty(0, np.float32))
    parts = np.repeat([part.part for part in hits], [len(part.rows) for part in hits])
    rows = np.concatenate([part.rows for part in hits])
    measured = np.concatenate([part.distances for part in hits])
    inserted = np.concatenate([snapshot.parts[part.part].inserted[part.rows] for part in hits])
    order = np.lexsort((inserted, measured))[:k]
    return Nearby(Found(parts[order], rows[order]), measured[order])


def _answer(snapshot: Snapshot, request: QueryRequest, ranked: Sequence[Nearby]) -> QueryResponse:
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


# ---- what searches are made of (`queryworker.searching`)


def nearest(snapshot: Snapshot, matches: Sequence[Matches], vector: Vectors, k: int, ef_search: int) -> Nearby:
    """The `k` nearest of the matching rows to one vector; equal distances by insertion. Raises InvalidArgument."""
    filled = [(number, part) for number, part in enumerate(matches) if part.matching and k]
    if filled and len(vector) != snapshot.dimension:
        raise wrong_dimension(snapshot, len(vector))
    hits: list[Hits] = []
    for number, part in filled:
        [found] = _nearest(snapshot.space, vector[None, :], part, k, ef_search)
        hits.append(Hits(number, found.rows, found.distances))
    return merged(snapshot, hits, k)
