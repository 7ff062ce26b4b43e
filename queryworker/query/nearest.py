"""The nearest matching rows of one part, as the planner plans it.

Where a filter is still open about rows (`queryworker.filter.evaluate`), the nearest of those that may match are found
first, and only they are decided about: that reads some dozen documents instead of all. When too few of them match, all
are decided about, and the search starts again with what is known then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

import numpy as np
from prometheus_client import Counter

from queryworker.filter.result import FilterResult
from queryworker.query.matches import Matches
from queryworker.query.planner import GraphSearch, Seen, enough, plan
from queryworker.view.part import GraphSearcher
from shared.segment.projection import oversampled
from shared.vectors.arrays import Indices, Mask, RowNumbers, Vectors
from shared.vectors.distance import Nearest, distances, nearest_many
from shared.vectors.space import Space

PLANS: Final = Counter("polychrome_queryworker_plans", "Searches of one vector in one part, by plan.", ["plan"])
_SCANS = PLANS.labels("scan")
_GRAPHS = PLANS.labels("graph")
_SCANS_AFTER_GRAPH = PLANS.labels("scan_after_graph")


DECIDED_BESIDE: Final = 8
"""Rows found by a scan beyond twice as many as wanted, where it is open whether they match."""


@dataclass(slots=True)
class PartTrace:
    """What was done in one part to find an answer. `beams`: of each graph search; `examined`: rows compared with a
    query or visited for it; `decided`: documents read because the filter was open about them.
    """

    beams: list[int] = field(default_factory=list)
    scans: int = 0
    examined: int = 0
    decided: int = 0


class Target(NamedTuple):
    """What is looked for: the `wanted` nearest of `matches`, in a graph by so many threads at once.
    `out_of_distribution`: the graph's order says little about each of the queries.
    """

    space: Space
    matches: Matches
    wanted: int
    ef_search: int
    threads: int = 1
    out_of_distribution: bool = False


def nearest(target: Target, queries: Vectors, trace: PartTrace) -> list[Nearest]:
    """The min(wanted, matching) nearest matching rows for each query, by exact distance; a few more where equal
    distances straddle the end, unless the part is ordered and was scanned: whoever merges parts cuts by insertion.

    A query whose matches are known is answered as if it were alone: it is searched for together only with those that
    have the same beam.
    """
    if target.wanted >= target.matches.matching:
        target = _settled(target, trace)
    graph = target.matches.part.graph
    unlike = None if graph is None else graph.out_of_distribution(queries)
    if unlike is None or not unlike.any():
        return _nearest(target, queries, trace)
    found: dict[int, Nearest] = {}
    for out_of_distribution in (False, True):
        numbers = np.flatnonzero(unlike == out_of_distribution)
        if len(numbers):
            hits = _nearest(target._replace(out_of_distribution=out_of_distribution), queries[numbers], trace)
            found |= zip(numbers.tolist(), hits, strict=True)
    return [found[number] for number in range(len(queries))]


def _nearest(target: Target, queries: Vectors, trace: PartTrace) -> list[Nearest]:
    """Round by round: every query without an answer is searched with its next beam, or scanned."""
    found = _found_of_all(target, queries, trace) if target.matches.mask is None else {}
    seen: dict[int, Seen] = {}
    while len(found) < len(queries):
        missing = [number for number in range(len(queries)) if number not in found]
        beams = {number: _beam(target, seen.get(number)) for number in missing}
        scanned = [number for number in missing if beams[number] is None]
        if scanned:
            (_SCANS_AFTER_GRAPH if seen else _SCANS).inc(len(scanned))
            hits = _scan(target, queries[scanned], trace)
            if hits is None:
                target = _settled(target, trace)
                continue
            found |= zip(scanned, hits, strict=True)
        for beam in sorted({beam for beam in beams.values() if beam is not None}):
            searched = [number for number in missing if beams[number] == beam]
            for number, rows in zip(searched, _search(target, queries[searched], beam, trace), strict=True):
                places = _matching_places(target.matches, rows, trace)
                seen[number] = _seen(beam, places, _reach(target))
                if _enough(target, seen[number]):
                    found[number] = _measured(target, queries[number], rows[places[: _reach(target)]])
    return [found[number] for number in range(len(queries))]


def _found_of_all(target: Target, queries: Vectors, trace: PartTrace) -> dict[int, Nearest]:
    """Where every row matches, one search of the graph answers all queries, by their numbers; but for those that it
    came back short for, and none where it is not to be searched.
    """
    beam = _beam(target, None)
    if beam is None:
        return {}
    reached = _reach(target)
    return {
        number: _measured(target, queries[number], rows[:reached])
        for number, rows in enumerate(_search(target, queries, beam, trace))
        if len(rows) >= reached
    }


def _settled(target: Target, trace: PartTrace) -> Target:
    """With nothing open."""
    matches = target.matches
    if matches.filter_result is not None:
        trace.decided += matches.matching
        matches = matches.settled()
    return target._replace(matches=matches, wanted=min(target.wanted, matches.matching))


def _matching_places(matches: Matches, rows: RowNumbers, trace: PartTrace) -> RowNumbers:
    """Places in `rows` of those that match."""
    places = np.arange(len(rows)) if matches.mask is None else np.flatnonzero(matches.mask[rows])
    return places if matches.filter_result is None else places[_decide(matches.filter_result, rows[places], trace)]


def _decide(result: FilterResult, rows: RowNumbers, trace: PartTrace) -> Mask:
    trace.decided += len(rows)
    return result.resolve(rows)


def _seen(beam: int, places: Indices, wanted: int) -> Seen:
    """`places`: where in the beam those are that match."""
    return Seen(beam, int(places[wanted - 1]) + 1 if len(places) >= wanted else None, len(places))


def _enough(target: Target, seen: Seen) -> bool:
    return enough(seen, rows=target.matches.part.rows, wanted=_reach(target), ef_search=target.ef_search)


def _reach(target: Target) -> int:
    """How many rows the graph has to find: where it compares fewer dimensions than the vectors have, more than are
    wanted, so that those are among them.
    """
    graph = target.matches.part.graph
    if graph is None or graph.dimension_share == 1:
        return target.wanted
    candidates = oversampled(target.wanted, target.ef_search, out_of_distribution=target.out_of_distribution)
    return min(candidates, target.matches.matching)


def _beam(target: Target, seen: Seen | None) -> int | None:
    """Of the next graph search; None: scan."""
    part = target.matches.part
    chosen = plan(
        rows=part.rows, matching=target.matches.matching, wanted=_reach(target), ef_search=target.ef_search,
        dimension_share=None if part.graph is None else part.graph.dimension_share,
        coded=part.codes is not None, seen=seen,
    )  # fmt: skip
    return chosen.beam if isinstance(chosen, GraphSearch) else None


def _search(target: Target, queries: Vectors, beam: int, trace: PartTrace) -> list[RowNumbers]:
    graph: GraphSearcher | None = target.matches.part.graph
    assert graph is not None
    _GRAPHS.inc(len(queries))
    trace.beams.append(beam)
    trace.examined += beam * len(queries)
    return graph.search(queries, beam, target.threads)


def _measured(target: Target, query: Vectors, rows: RowNumbers) -> Nearest:
    """The `wanted` nearest of these rows, and those that are as near as the last of them."""
    measured = distances(target.space, query, target.matches.part.vectors.take(rows, axis=0))
    order = np.argsort(measured, kind="stable")
    ranked = measured[order]
    end = np.searchsorted(ranked, ranked[: target.wanted][-1:], side="right").max(initial=0)
    return Nearest(rows[order[:end]], ranked[:end])


def _scan(target: Target, queries: Vectors, trace: PartTrace) -> list[Nearest] | None:
    """Exactly the `wanted` nearest, and a few more where equal distances straddle the end. Where something is open, a
    few more are found and decided about; None when for some query not enough of them match.
    """
    result = target.matches.filter_result
    if result is None:
        return _scan_all(target, queries, trace)
    more = target._replace(wanted=min(target.matches.matching, 2 * target.wanted + DECIDED_BESIDE))
    found: list[Nearest] = []
    for hits in _scan_all(more, queries, trace):
        kept = _decide(result, hits.rows, trace)
        if np.count_nonzero(kept) < target.wanted:
            return None
        found.append(Nearest(hits.rows[kept], hits.distances[kept]))
    return found


def _scan_all(target: Target, queries: Vectors, trace: PartTrace) -> list[Nearest]:
    """Exactly the `wanted` nearest of what matches or may match."""
    part, matching, wanted = target.matches.part, target.matches.matching, target.wanted
    trace.scans += len(queries)
    trace.examined += matching * len(queries)
    rows = None if matching == part.rows else target.matches.rows()
    # Norms of all rows are worth making only when many of them are compared, and nothing better is there.
    norms = None if part.codes is not None else part.norms(compute=64 * matching > part.rows)

    def scan(vectors: Vectors, k: int) -> list[Nearest]:
        return nearest_many(target.space, vectors, part.vectors, k, rows=rows, norms=norms, codes=part.codes)

    if part.in_insertion_order:  # of equal distances the lower row comes first, and that is the older one
        return scan(queries, wanted)
    found = scan(queries, wanted + 1)
    for number, hits in enumerate(found):
        reach = wanted + 1
        while reach < matching and hits.distances[-1] == hits.distances[wanted - 1]:
            reach = min(2 * reach, matching)
            hits = scan(queries[number : number + 1], reach)[0]  # noqa: PLW2901 (goes back into the list)
        found[number] = hits
    return found
