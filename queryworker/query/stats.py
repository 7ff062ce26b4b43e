"""Statistics of a read, gathered as it goes at next to no cost, for a client that asks with `explain`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from queryworker.query.selected_rows import SelectedRows
from queryworker.view.read_view import ReadView
from shared.records.explanation import Explanation, PartExplanation


@dataclass(slots=True)
class PartStats:
    """The work of a read in one part, for all of its queries together. `beams`: the beam of each graph search; `scans`:
    how many queries were compared with all selected rows; `examined`: rows that were compared with a query, or visited
    by a graph for it; `documents_read`: rows whose documents were read because a filter was undecided about them.
    """

    beams: list[int] = field(default_factory=list)
    scans: int = 0
    examined: int = 0
    documents_read: int = 0


class ExecutionStats:
    """The work of one read: how long each stage took, one after the other, and what was done in each part."""

    def __init__(self) -> None:
        self._stage_began_s = time.perf_counter()
        self._stages_ms: dict[str, float] = {}
        self._parts: dict[int, PartStats] = {}

    def part(self, number: int) -> PartStats:
        """The statistics of the part with this number in the read view, to be added to."""
        return self._parts.setdefault(number, PartStats())

    def stage_ended(self, stage: str) -> None:
        """Note that everything since the last stage ended, or since the read began, was this stage."""
        now_s = time.perf_counter()
        self._stages_ms[stage] = round((now_s - self._stage_began_s) * 1000, 3)
        self._stage_began_s = now_s

    def explanation(self, view: ReadView, shard: int, selected: Sequence[SelectedRows]) -> Explanation:
        """The explanation of a read of `view` that `selected` these rows, before undecided ones were resolved. Parts
        without rows are left out.
        """
        parts = [_part_explanation(rows, self.part(number)) for number, rows in enumerate(selected)]
        return Explanation(
            shard=shard,
            position=view.position,
            segments=len(view.base.segments.segments),
            tail_rows=view.tail.rows,
            parts=[part for part in parts if part.rows],
            milliseconds=self._stages_ms,
        )


def _part_explanation(selected: SelectedRows, stats: PartStats) -> PartExplanation:
    part = selected.part
    return PartExplanation(
        part=part.name,
        rows=part.rows,
        living=part.live_rows,
        matching=selected.count,
        undecided=selected.undecided is not None,
        beams=stats.beams,
        scans=stats.scans,
        examined=stats.examined,
        documents_read=stats.documents_read,
    )
