"""The segment that a compaction adds, as the merge policy planned it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from compactor.policy import Plan
from compactor.sources import Source
from shared.records.indexing import EVERYTHING, Indexing
from shared.segment.format import GRAPH, SegmentInfo
from shared.segment.writer import GraphParams, write_segment


@dataclass(frozen=True, slots=True)
class Built:
    """A new segment in its folder. `dead` are the rows that it was born with: those of the segment that it extends.

    `inserted_into_graph` is the number of rows that were added to a graph.
    """

    directory: Path
    info: SegmentInfo
    dead: BitMap
    inserted_into_graph: int


def build(
    directory: Path,
    segment_id: str,
    path: str,
    sources: Sequence[Source],
    plan: Plan,
    tail: pa.Table,
    params: GraphParams,
    check: Callable[[], None],
    indexing: Indexing = EVERYTHING,
) -> Built | None:
    """Writes the planned segment into `directory`; None when the plan has no row for it. Takes long: for a thread.
    `path` is where its files will stand in the bucket. `check` is called now and then: what it raises ends the work.

    The rows of the segment that is extended come first and where they were, because its graph knows them by number. All
    others follow in the order of their insertion. An id that stands in a dead row of the former and in a row behind it
    means the latter.
    """
    extended = None if plan.extended is None else sources[plan.extended]
    others = [sources[number] for number in plan.merged]
    added = _by_insertion(pa.concat_tables([*(source.live_records() for source in others), tail]))
    records = pa.concat_tables([extended.all_records(), added]) if extended else added
    if not records.num_rows:
        return None
    check()
    prior_graph = extended.directory / GRAPH if extended else None
    written = write_segment(directory, segment_id, path, records, params, prior_graph, check, indexing)
    return Built(directory, written.info, extended.dead.copy() if extended else BitMap(), written.inserted)


def _by_insertion(records: pa.Table) -> pa.Table:
    """The records, ascending by `inserted`. Nothing is copied in the usual case, where they are in this order."""
    inserted = records.column("inserted").to_numpy()
    if bool((inserted[1:] >= inserted[:-1]).all()):
        return records
    return records.take(np.argsort(inserted, kind="stable"))
