"""What a read did to come to its answer; shown to a client that asks for it."""

from __future__ import annotations

import msgspec


class PartExplanation(msgspec.Struct, frozen=True):
    """What a read did in one segment or stretch of the tail.

    `matching` rows are meant by the request; when `undecided`, as far as the indexes know, and documents decide.
    `beams`: of the graph searches, one after the other; `scans`: how many queries were compared with all matching
    rows; `examined`: rows that were compared, or visited by the graph, for all queries together; `documents_read`:
    those that were looked at to decide whether they match.
    """

    part: str
    rows: int
    living: int
    matching: int
    undecided: bool
    beams: list[int]
    scans: int
    examined: int
    documents_read: int


class Explanation(msgspec.Struct, frozen=True):
    """What a worker did to answer from one shard. `milliseconds` by stage: `currency` (making the view current, waiting
    included), then `filter`, `search`, `assemble`.
    """

    shard: int
    position: int
    segments: int
    tail_rows: int
    parts: list[PartExplanation]
    milliseconds: dict[str, float]
    worker: str = ""
