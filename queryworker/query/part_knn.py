"""The k nearest of the selected rows of one part, searched as the planner plans it (`queryworker.query.planner`).

Where a filter is undecided about rows (`queryworker.filter.result`), the nearest candidates are found first, and only
they are resolved: that reads some dozen documents instead of all. When too few of them match, all undecided rows are
resolved, and the search begins again with what is known then.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from prometheus_client import Counter

from queryworker.filter.result import FilterResult
from queryworker.query.planner import BeamOutcome, GraphSearch, is_enough, plan
from queryworker.query.selected_rows import SelectedRows
from queryworker.query.stats import PartStats
from queryworker.view.part import GraphSearcher
from shared.process import work
from shared.segment.projection import oversampled
from shared.vectors.arrays import Indices, Mask, RowNumbers, Vector, Vectors
from shared.vectors.distance import Nearest, distances, nearest_many
from shared.vectors.space import Space

PLANS: Final = Counter("polychrome_queryworker_plans_total", "Searches of one vector in one part, by plan.", ["plan"])
_SCANS = PLANS.labels("scan")
_GRAPHS = PLANS.labels("graph")
_SCANS_AFTER_GRAPH = PLANS.labels("scan_after_graph")

VECTOR_NUMBER_BYTES: Final = 4
"""Bytes of a number of a vector as it is stored. What is scanned counts so, also where codes save reading it."""

EXTRA_CANDIDATES: Final = 8
"""A scan under an undecided filter finds twice as many candidates as are wanted, and this many more."""


class PartSearch(NamedTuple):
    """A search for the `k` nearest of the `selected` rows of a part, by exact distance in `space`; in a graph by
    `threads` threads at once. `out_of_distribution`: the graph's order says little about each of the queries.
    """

    space: Space
    selected: SelectedRows
    k: int
    ef_search: int
    threads: int = 1
    out_of_distribution: bool = False


def nearest_in_part(search: PartSearch, queries: Vectors, stats: PartStats) -> list[Nearest]:
    """The nearest matching rows for each of the queries [q, d], nearest first: k of them, or all where fewer match. A
    few more come where equal distances straddle the end, unless the part is in insertion order and was scanned: the
    merge of the parts cuts them off by insertion.

    Each query is answered as if it were alone: it is searched for together only with queries that have the same beam,
    and a query that finds too few matching rows leads to no other search for the others.
    """
    if search.k >= search.selected.count:
        search = _resolved(search, stats)
    graph = search.selected.part.graph
    unlike = None if graph is None else graph.out_of_distribution(queries)
    if unlike is None or not unlike.any():
        return _nearest(search, queries, stats)
    found: dict[int, Nearest] = {}
    for out_of_distribution in (False, True):
        numbers = np.flatnonzero(unlike == out_of_distribution)
        if len(numbers):
            hits = _nearest(search._replace(out_of_distribution=out_of_distribution), queries[numbers], stats)
            found |= zip(numbers.tolist(), hits, strict=True)
    return [found[number] for number in range(len(queries))]


def _nearest(search: PartSearch, queries: Vectors, stats: PartStats) -> list[Nearest]:
    """Round by round: every query without an answer is searched for with its next beam, or by a scan."""
    found = _search_unfiltered(search, queries, stats) if search.selected.mask is None else {}
    outcomes: dict[int, BeamOutcome] = {}
    while len(found) < len(queries):
        missing = [number for number in range(len(queries)) if number not in found]
        beams = {number: _next_beam(search, outcomes.get(number)) for number in missing}
        scanned = [number for number in missing if beams[number] is None]
        if scanned:
            (_SCANS_AFTER_GRAPH if outcomes else _SCANS).inc(len(scanned))
            hits = dict(zip(scanned, _scan(search, queries[scanned], stats), strict=True))
            short = [number for number, of_query in hits.items() if of_query is None]
            if short:
                hits |= zip(short, _nearest(_resolved(search, stats), queries[short], stats), strict=True)
            found |= {number: of_query for number, of_query in hits.items() if of_query is not None}
        for beam in sorted({beam for beam in beams.values() if beam is not None}):
            searched = [number for number in missing if beams[number] == beam]
            for number, rows in zip(searched, _search_graph(search, queries[searched], beam, stats), strict=True):
                places = _matching_places(search.selected, rows, stats)
                outcomes[number] = _outcome(beam, places, _graph_k(search))
                if _is_enough(search, outcomes[number]):
                    found[number] = _ranked(search, queries[number], rows[places[: _graph_k(search)]])
    return [found[number] for number in range(len(queries))]


def _search_unfiltered(search: PartSearch, queries: Vectors, stats: PartStats) -> dict[int, Nearest]:
    """The answers of one search of the graph for all queries, when every row of the part is selected; by the numbers of
    the queries, without those that the graph came back short for, and none where the plan is a scan.
    """
    beam = _next_beam(search, None)
    if beam is None:
        return {}
    wanted = _graph_k(search)
    return {
        number: _ranked(search, queries[number], rows[:wanted])
        for number, rows in enumerate(_search_graph(search, queries, beam, stats))
        if len(rows) >= wanted
    }


def _resolved(search: PartSearch, stats: PartStats) -> PartSearch:
    """The search among the rows that match, after all undecided rows were resolved."""
    selected = search.selected
    if selected.undecided is not None:
        _count_documents(selected.count, stats)
        selected = selected.resolved()
    return search._replace(selected=selected, k=min(search.k, selected.count))


def _matching_places(selected: SelectedRows, rows: RowNumbers, stats: PartStats) -> RowNumbers:
    """Places in `rows` of the rows that match."""
    places = np.arange(len(rows)) if selected.mask is None else np.flatnonzero(selected.mask[rows])
    return places if selected.undecided is None else places[_resolve(selected.undecided, rows[places], stats)]


def _resolve(undecided: FilterResult, rows: RowNumbers, stats: PartStats) -> Mask:
    _count_documents(len(rows), stats)
    return undecided.resolve(rows)


def _count_examined(rows: int, queries: Vectors, stats: PartStats) -> None:
    stats.examined += rows
    work.scanned(rows, rows * VECTOR_NUMBER_BYTES * queries.shape[1])


def _count_documents(rows: int, stats: PartStats) -> None:
    stats.documents_read += rows
    work.scanned(rows)


def _outcome(beam: int, places: Indices, wanted: int) -> BeamOutcome:
    """The outcome of a graph search that found matching rows at these places of its beam."""
    rank = int(places[wanted - 1]) + 1 if len(places) >= wanted else None
    return BeamOutcome(beam, rank, len(places))


def _is_enough(search: PartSearch, outcome: BeamOutcome) -> bool:
    return is_enough(outcome, rows=search.selected.part.rows, k=_graph_k(search), ef_search=search.ef_search)


def _graph_k(search: PartSearch) -> int:
    """The number of matching rows that the graph has to find: where it compares fewer dimensions than the vectors have,
    more than k, so that the k nearest are among them.
    """
    graph = search.selected.part.graph
    if graph is None or graph.dimension_share == 1:
        return search.k
    candidates = oversampled(search.k, search.ef_search, out_of_distribution=search.out_of_distribution)
    return min(candidates, search.selected.count)


def _next_beam(search: PartSearch, outcome: BeamOutcome | None) -> int | None:
    """The beam of the next graph search, after one with this outcome or as the first one; None: scan."""
    part = search.selected.part
    chosen = plan(
        rows=part.rows, matching=search.selected.count, k=_graph_k(search), ef_search=search.ef_search,
        dimension_share=None if part.graph is None else part.graph.dimension_share,
        coded=part.codes is not None, outcome=outcome,
    )  # fmt: skip
    return chosen.beam if isinstance(chosen, GraphSearch) else None


def _search_graph(search: PartSearch, queries: Vectors, beam: int, stats: PartStats) -> list[RowNumbers]:
    graph: GraphSearcher | None = search.selected.part.graph
    assert graph is not None
    _GRAPHS.inc(len(queries))
    stats.beams.append(beam)
    _count_examined(beam * len(queries), queries, stats)
    return graph.search(queries, beam, search.threads)


def _ranked(search: PartSearch, query: Vector, rows: RowNumbers) -> Nearest:
    """The k nearest of these rows by exact distance, and those that are as near as the last of them."""
    measured = distances(search.space, query, search.selected.part.vectors.take(rows, axis=0))
    order = np.argsort(measured, kind="stable")
    ranked = measured[order]
    end = np.searchsorted(ranked, ranked[: search.k][-1:], side="right").max(initial=0)
    return Nearest(rows[order[:end]], ranked[:end])


def _scan(search: PartSearch, queries: Vectors, stats: PartStats) -> Sequence[Nearest | None]:
    """The k nearest by comparing all selected rows. Where a filter is undecided, a few more candidates are found and
    resolved; None for a query when fewer than k of them match.
    """
    undecided = search.selected.undecided
    if undecided is None:
        return _scan_selected(search, queries, stats)
    more = search._replace(k=min(search.selected.count, 2 * search.k + EXTRA_CANDIDATES))
    found: list[Nearest | None] = []
    for hits in _scan_selected(more, queries, stats):
        kept = _resolve(undecided, hits.rows, stats)
        too_few = np.count_nonzero(kept) < search.k
        found.append(None if too_few else Nearest(hits.rows[kept], hits.distances[kept]))
    return found


def _scan_selected(search: PartSearch, queries: Vectors, stats: PartStats) -> list[Nearest]:
    """The k nearest of the selected rows, whether they match or may match; a few more where equal distances straddle
    the end, unless the part is in insertion order.
    """
    part, count, k = search.selected.part, search.selected.count, search.k
    stats.scans += len(queries)
    _count_examined(count * len(queries), queries, stats)
    rows = None if count == part.rows else search.selected.rows()
    # Norms of all rows are worth computing only when many of them are compared, and there are no codes.
    norms = None if part.codes is not None else part.norms(compute=64 * count > part.rows)

    def scan(vectors: Vectors, wanted: int) -> list[Nearest]:
        return nearest_many(search.space, vectors, part.vectors, wanted, rows=rows, norms=norms, codes=part.codes)

    if part.in_insertion_order:  # of equal distances the lower row comes first, and that is the older one
        return scan(queries, k)
    found = scan(queries, k + 1)
    for number, hits in enumerate(found):
        wanted = k + 1
        while wanted < count and hits.distances[-1] == hits.distances[k - 1]:
            wanted = min(2 * wanted, count)
            hits = scan(queries[number : number + 1], wanted)[0]  # noqa: PLW2901 (goes back into the list)
        found[number] = hits
    return found
