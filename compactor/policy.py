"""The merge policy: the segments that a compaction merges, a pure function of their sizes.

What is weighed
  * Reading: every segment of a shard is searched by every query, so there should be few, one of them with most rows.
  * Building: adding a row to a graph costs about 0.3 ms of CPU; a row that is merged t times is added t times.
  * Copying: a graph is extended on a copy, so extending a segment writes, uploads and sends to the query workers all of
    its rows again, at 5 (local disk) to 40 us (object storage) a row.

The rule: order the segments by live rows, the smallest first, and let a *run* begin with the tail. A segment joins the
run when it has at most `patience` times the rows of the run with all segments smaller than itself; so do all smaller
ones. What joined becomes one new segment; the others stay as they are.

```text
patience of 8     for the largest segment once it has 64 MiB: a copy of it is made for at least an eighth of its
                  rows, so loading writes it about 1 + 8 times over, and a handful of rows never costs a copy
patience of 32    for all others: the second segment soaks up the tails until it has an eighth of the largest
```

What follows (and `tests/compactor/test_policy.py` measures)
  * After a compaction every segment has more than `patience` times the rows of all smaller ones together: of a million
    rows there are at most five or six segments, the small ones without a graph (`limits.GRAPH_ROWS_MIN`).
  * Extending a graph adds only the rows that joined. In a bulk load a row is added once to the segment that soaks up
    the tails and once to the largest: two insertions a row at most, on average fewer, because tails of an eighth go
    straight into the largest.

Tombstones cost memory and search effort. A segment with more than a quarter of its rows dead joins in any case, and is
then rewritten from its live rows instead of extended (so a deletion costs at most three insertions in the long run). A
segment without live rows is dropped without reading it.

A segment of which the bucket has damaged files joins in any case, too: what is made of it takes its place. So does one
with any dead row while the collection is being erased from: nothing of a deleted record stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

DEAD_SHARE_MAX: Final = 0.25
"""Share of dead rows above which a segment is rewritten."""

SIZE_RATIO_MAX: Final = 32
"""Rows that a segment may have, as a multiple of those of all smaller ones together, and still join the run."""

SIZE_RATIO_LARGEST_MAX: Final = 8
"""`SIZE_RATIO_MAX` of the largest segment, once it takes `LARGE_BYTES`."""

LARGE_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class SegmentStats:
    """A segment as the policy sees it; `dead` counts the rows that die in this compaction, too. `graph`: whether it has
    one, which can be extended. `damaged`: whether the bucket has files of it damaged. `purged`: whether none of its
    dead rows may stay.
    """

    rows: int
    dead: int
    bytes: int
    graph: bool
    damaged: bool = False
    purged: bool = False

    @property
    def live(self) -> int:
        """Rows that are not dead."""
        return self.rows - self.dead

    @property
    def worn(self) -> bool:
        """Whether too many rows are dead to go on with this segment; any, while it is purged."""
        return self.dead > (0 if self.purged else DEAD_SHARE_MAX * self.rows)


@dataclass(frozen=True, slots=True)
class Plan:
    """Numbers of segments. The new segment has all rows of `extended` (dead ones included; its graph is extended), then
    the live rows of `merged`, then the tail; there is no new segment when all of these are empty. `dropped` are named
    no more, `kept` stay as they are.
    """

    extended: int | None
    merged: tuple[int, ...]
    kept: tuple[int, ...]
    dropped: tuple[int, ...]


def plan(segments: Sequence[SegmentStats], tail_rows: int) -> Plan:
    """The plan for these segments and a tail of `tail_rows` live rows."""
    dropped = tuple(number for number, segment in enumerate(segments) if segment.live == 0)
    alive = (number for number in range(len(segments)) if segments[number].live)
    ascending = sorted(alive, key=lambda number: segments[number].live)
    joined = 0
    smaller = tail_rows
    for place, number in enumerate(ascending):
        segment = segments[number]
        patience = _patience(segment, largest=place + 1 == len(ascending))
        if segment.worn or segment.damaged or segment.live <= patience * smaller:
            joined = place + 1
        smaller += segment.live
    run, kept = ascending[:joined], ascending[joined:]
    extendable = [number for number in run if segments[number].graph and not segments[number].worn]
    extended = max(extendable, key=lambda number: segments[number].live, default=None)
    return Plan(extended, tuple(sorted(set(run) - {extended})), tuple(sorted(kept)), dropped)


def _patience(segment: SegmentStats, *, largest: bool) -> int:
    return SIZE_RATIO_LARGEST_MAX if largest and segment.bytes >= LARGE_BYTES else SIZE_RATIO_MAX
