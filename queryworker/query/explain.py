"""What a read did, for who asked with `explain`: written down as it goes, at next to no cost."""

from __future__ import annotations

import time
from collections.abc import Sequence

from queryworker.query.matches import Matches
from queryworker.query.nearest import PartTrace
from queryworker.view.read_view import ReadView
from shared.records.explanation import Explanation, PartExplanation


class Trace:
    """Of one read: stages one after the other, and what was done in each part."""

    def __init__(self) -> None:
        self._began_s = time.perf_counter()
        self._stages_ms: dict[str, float] = {}
        self._parts: dict[int, PartTrace] = {}

    def part(self, number: int) -> PartTrace:
        return self._parts.setdefault(number, PartTrace())

    def ended(self, stage: str) -> None:
        """What took place since the last stage was `stage`."""
        now_s = time.perf_counter()
        self._stages_ms[stage] = round((now_s - self._began_s) * 1000, 3)
        self._began_s = now_s

    def explanation(self, view: ReadView, shard: int, matches: Sequence[Matches]) -> Explanation:
        """`matches`: as the filter left them, part by part."""
        parts = [_part(part, self.part(number)) for number, part in enumerate(matches)]
        return Explanation(
            shard=shard,
            position=view.position,
            segments=len(view.base.segments.segments),
            tail_rows=view.tail.rows,
            parts=[part for part in parts if part.rows],
            milliseconds=self._stages_ms,
        )


def _part(matches: Matches, trace: PartTrace) -> PartExplanation:
    part = matches.part
    return PartExplanation(
        part=part.name,
        rows=part.rows,
        living=part.live_rows,
        matching=matches.matching,
        undecided=matches.filter_result is not None,
        beams=trace.beams,
        scans=trace.scans,
        examined=trace.examined,
        documents_read=trace.decided,
    )
