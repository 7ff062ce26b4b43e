"""The segments of one manifest with their tombstones, as one set of records: the base segments of a tail.

Invariant: an id is live in at most one segment, at one row. `find` relies on it and looks at the newest segment first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pyroaring import BitMap

from shared.records.materialize import Record
from shared.segment.reader import Segment


class RowRef(NamedTuple):
    """The place of a record: number of the segment in its set, row in the segment."""

    segment: int
    row: int


class SegmentSet:
    """Segments, oldest first; `tombstones[i]` are the dead rows of `segments[i]`. Nothing in it changes."""

    def __init__(self, segments: Sequence[Segment], tombstones: Sequence[BitMap]) -> None:
        if len(segments) != len(tombstones):
            raise ValueError(f"{len(segments)} segments, {len(tombstones)} bitmaps")
        self.segments = tuple(segments)
        self.tombstones = tuple(tombstones)
        self.live_rows: int = sum(segment.rows - len(dead) for segment, dead in zip(segments, tombstones, strict=True))

    def find(self, ids: Sequence[str]) -> list[RowRef | None]:
        """The place of the live record of each id, None where there is none."""
        found: list[RowRef | None] = [None] * len(ids)
        missing = list(range(len(ids)))
        for number in reversed(range(len(self.segments))):
            if not missing:
                break
            rows = self.segments[number].find([ids[i] for i in missing])
            dead = self.tombstones[number]
            for i, row in zip(missing, rows, strict=True):
                if row >= 0 and row not in dead:
                    found[i] = RowRef(number, row)
            missing = [i for i in missing if found[i] is None]
        return found

    def record(self, ref: RowRef) -> Record:
        """The whole record at `ref`; its embedding is a view of the segment's matrix."""
        segment = self.segments[ref.segment]
        return Record(
            embedding=segment.vectors[ref.row],
            document=segment.text("document").text(ref.row),
            metadata=segment.text("metadata").text(ref.row),
            uri=segment.text("uri").text(ref.row),
            inserted=int(segment.inserted[ref.row]),
            written=int(segment.written[ref.row]),
        )
