"""The second half of a compaction: the new segment, as the policy planned it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from compactor.policy import Plan
from shared.records.indexing import EVERYTHING, Indexing
from shared.segment.format import GRAPH, SegmentInfo
from shared.segment.reader import Segment
from shared.segment.writer import GraphParams, write_segment
from shared.vectors.arrays import Mask


@dataclass(frozen=True, slots=True)
class Source:
    """A segment of the old manifest: its folder, its content, and its dead rows including those that die now."""

    directory: Path
    segment: Segment
    dead: BitMap

    def live_mask(self) -> Mask:
        """Bool [rows]."""
        mask = np.ones(self.segment.rows, np.bool_)
        mask[np.fromiter(self.dead, np.int64, len(self.dead))] = False
        return mask


@dataclass(frozen=True, slots=True)
class Built:
    """A new segment in its folder. `dead` are the rows that it was born with: those of the base that it extends.

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

    The rows of the base come first and where they were, because its graph knows them by number. All others follow in
    the order of their insertion. An id that stands in a dead row of the base and in a row behind it means the latter.
    """
    base = None if plan.base is None else sources[plan.base]
    others = [sources[number] for number in plan.merged]
    added = _by_insertion(pa.concat_tables([*(_live_records(source) for source in others), tail]))
    records = pa.concat_tables([_records(base.segment), added]) if base else added
    if not records.num_rows:
        return None
    check()
    prior_graph = base.directory / GRAPH if base else None
    written = write_segment(directory, segment_id, path, records, params, prior_graph, check, indexing)
    return Built(directory, written.info, base.dead.copy() if base else BitMap(), written.inserted)


def _records(segment: Segment) -> pa.Table:
    return segment.records.replace_schema_metadata(None)


def _live_records(source: Source) -> pa.Table:
    return _records(source.segment).filter(pa.array(source.live_mask()))


def _by_insertion(records: pa.Table) -> pa.Table:
    """Ascending by `inserted`. Nothing is copied in the usual case, where they are."""
    inserted = records.column("inserted").to_numpy()
    if bool((inserted[1:] >= inserted[:-1]).all()):
        return records
    return records.take(np.argsort(inserted, kind="stable"))
