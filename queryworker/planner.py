"""How to find the nearest records of one part: scan the matching rows, or search the graph. Pure.

A graph search does not know which rows match (deleted rows do not, and filtered ones). It visits a beam of nearest rows
and what does not match is dropped afterwards. With a beam wider by the inverse share of matching rows, about
`ef_search` of its rows match: recall is then that of an unfiltered search. A beam that would cost more than scanning
the matching rows is not worth it. When a search still comes back with fewer than it should (matching rows far from
the query), the caller scans: so an answer always has min(k, matching) rows.

Costs are in units of one row of a sequential scan; measured at 384 dimensions (docs/design), where they all grow alike.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

GATHERED_ROW_COST: Final = 4.0
"""A row that is fetched by its number before it is compared."""

BEAM_COST: Final = 24.0
"""One more row in the beam of a graph search: its neighbours are fetched and compared."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Compare the query with every matching row."""


@dataclass(frozen=True, slots=True)
class GraphSearch:
    """Search the graph with this beam, drop what does not match, scan if fewer than `wanted` are left."""

    beam: int


Plan = Scan | GraphSearch


def plan(*, rows: int, matching: int, wanted: int, ef_search: int, graph: bool) -> Plan:
    """The cheaper way to the `wanted` (at most `matching`) nearest of `matching` among `rows` rows of a part."""
    if not graph or matching == 0 or wanted == 0:
        return Scan()
    beam = min(rows, math.ceil(max(ef_search, wanted) * rows / matching))
    return GraphSearch(beam) if beam * BEAM_COST < scan_cost(rows, matching) else Scan()


def scan_cost(rows: int, matching: int) -> float:
    """Most rows: all are compared in sequence and the others dropped. Few: they are gathered."""
    return min(float(rows), matching * GATHERED_ROW_COST)
