"""Explanations: what a read did to come to its answer, shown to a client that asks for it."""

from __future__ import annotations

import msgspec


class PartExplanation(msgspec.Struct, frozen=True):
    """The work of a read in one part of a view: a segment or a stretch of the tail.

    `matching` is how many rows the request selects; when `undecided`, how many it may select as far as the indexes
    know, and documents decide. `beams` are the beams of the graph searches, one after the other; `scans` is how many
    queries were compared with all matching rows; `examined` how many rows were compared, or visited by the graph, for
    all queries together; `documents_read` how many documents were read to decide whether their rows match.
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
    """The work of a worker to answer from one shard, as of `position`. `milliseconds` is the time of each stage:
    `currency` (making the view current, waiting included), then `filter`, `search`, `assemble`.
    """

    shard: int
    position: int
    segments: int
    tail_rows: int
    parts: list[PartExplanation]
    milliseconds: dict[str, float]
    worker: str = ""
