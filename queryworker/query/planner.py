"""The query planner: whether the nearest rows of one part are found by a scan of the matching rows or in the graph.
Pure.

A graph search does not know which rows match (dead rows do not, and filtered ones may not). It visits a *beam* of near
rows, and what does not match is dropped afterwards. When one row in s matches, the nearest ten that match are among
the nearest 10 s of all, so the question is how wide a beam has to be to hold the nearest r rows. Measured on real
vectors, the true share of the r nearest in a beam is as good as that of the 10 nearest in a beam of 115 rows

```text
r             30    100    300    1000
with a beam  200    300    600    2000
```

which the square root of r follows while r is small, and twice r beyond. That makes a filtered search as good as an
unfiltered one, 0.983 at recall@10; it is to be better, because a database that filters without a graph finds all. So
the beam is widened more, the more rows do not match: where half of them match, recall is 0.985 by that rule alone and
0.995 with twice the beam.

What is known beforehand is the share of matching rows in the whole part; near the query it may be another one. So after
a search the same rule is asked again with the rank at which the k-th matching row was found; when that says that the
beam was too narrow, or fewer than k rows matched, it gives the next beam. As soon as a beam would cost more than
comparing all matching rows, those are compared. So an answer always has min(k, matching) rows, and no fewer of the
right ones than without a filter.

Costs are in units of one row of a sequential scan: at 384 dimensions 0.13 us; 0.13 us for a gathered row while all of
them stay in the processor's cache, 0.3 us beyond; 2.5 us for a row of a beam. Where vectors have codes
(`shared.vectors.codes`), it is these that are scanned: 0.03 us a row, 0.1 us for a gathered one. They all grow alike
with the dimension; that of a beam with the dimension of the graph's vectors, which may be less
(`shared.segment.projection`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

GATHERED_ROW_COST: Final = 1.5
"""Cost of a row that is fetched by its number before it is compared."""

CODED_ROW_COST: Final = 0.25
GATHERED_CODED_ROW_COST: Final = 0.75
"""Costs of a row of a sequential scan and of a gathered row, where vectors have codes."""

BEAM_COST: Final = 19.0
"""Cost of one more row in the beam of a graph search: its neighbours are fetched and compared."""

BEAM_COST_FIXED: Final = 0.2
"""The share of the beam's cost that does not depend on the dimension of the graph's vectors."""

BEAM_MARGIN_PERCENT: Final = 15
"""Added to a beam: graphs that were extended, or whose rows died in part, find a little less than one built at once."""

FILTER_MARGIN_PERCENT: Final = 250
"""Added to a beam, times the share of rows that do not match."""

TOLERANCE: Final = 1.25
"""A beam is searched again when it should have been wider by more than this factor: matching rows lie among the others
by chance, and a second search costs more than the first.
"""


@dataclass(frozen=True, slots=True)
class Scan:
    """Compare the query with every matching row."""


@dataclass(frozen=True, slots=True)
class GraphSearch:
    """Search the graph with this beam and drop what does not match."""

    beam: int


@dataclass(frozen=True, slots=True)
class BeamOutcome:
    """The outcome of a graph search with `beam`: `matching` matching rows, the k-th of them at `rank` (from 1) of the
    beam. `rank` is None when fewer than k rows match.
    """

    beam: int
    rank: int | None
    matching: int


Plan = Scan | GraphSearch


def plan(
    *,
    rows: int,
    matching: int,
    k: int,
    ef_search: int,
    dimension_share: float | None,
    coded: bool,
    outcome: BeamOutcome | None = None,
) -> Plan:
    """The cheaper way to the k (at most `matching`) nearest of `matching` among `rows` rows of a part. With the outcome
    of a search that was not enough (`is_enough`), the next way. `dimension_share`: the share of the dimensions that the
    graph compares, None without a graph. `coded`: whether the vectors have codes.
    """
    if dimension_share is None or matching == 0 or k == 0:
        return Scan()
    share = matching / rows if outcome is None else _matching_share(outcome, k)
    beam = min(rows, _beam(share, k, ef_search))
    wider = outcome is None or beam > outcome.beam
    cost = beam * BEAM_COST * (BEAM_COST_FIXED + (1 - BEAM_COST_FIXED) * dimension_share)
    return GraphSearch(beam) if wider and cost < scan_cost(rows, matching, coded=coded) else Scan()


def is_enough(outcome: BeamOutcome, *, rows: int, k: int, ef_search: int) -> bool:
    """Whether what a search found is as good as that of an unfiltered one."""
    if outcome.rank is None:
        return False
    return outcome.beam >= rows or _beam(_matching_share(outcome, k), k, ef_search) <= TOLERANCE * outcome.beam


def _matching_share(outcome: BeamOutcome, k: int) -> float:
    """The share of matching rows near the query. When no row matched, half a row is taken: the next may be near or
    far.
    """
    return (outcome.matching + 0.5) / outcome.beam if outcome.rank is None else k / outcome.rank


def _beam(share: float, k: int, ef_search: int) -> int:
    """The beam that holds the k nearest matching rows where this share of the rows matches."""
    least = ef_search * (100 + BEAM_MARGIN_PERCENT + FILTER_MARGIN_PERCENT * (1 - share)) / 100
    # k of k / share rows match, give or take two deviations of a coin thrown for each.
    apart = (k + 2 * math.sqrt(k * (1 - share))) / share
    return math.ceil(max(least / math.sqrt(share), apart, (2 - share) * k / share))


def scan_cost(rows: int, matching: int, *, coded: bool) -> float:
    """The cost of comparing `matching` of `rows` rows. When most rows match, all are compared in sequence and the
    others dropped; when few do, they are gathered.
    """
    if coded:
        return min(rows * CODED_ROW_COST, matching * GATHERED_CODED_ROW_COST)
    return min(float(rows), matching * GATHERED_ROW_COST)
