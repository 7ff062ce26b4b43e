"""The result of a compaction of a shard's segments and its log: planned, built and proven, and yet to be published.

1. The rows that the log deleted or replaced are dead in their segments.
2. The merge policy says which segments are merged with the tail into a new one, and which stay as they are.
3. The new segment is built in scratch.
4. The list of segments is proven against the log: nothing was dropped, nothing invented.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import Counter

from compactor.apply_log import AppliedLog
from compactor.build import Built, build
from compactor.policy import SegmentStats, plan
from compactor.proof import prove
from compactor.sources import Source
from shared.errors import Corrupt
from shared.log.state import ShardState
from shared.manifest.model import Manifest, SegmentRef
from shared.objects.keys import segment_path
from shared.records.indexing import Indexing
from shared.segment.segment_set import SegmentSet
from shared.segment.writer import GraphParams
from shared.vectors.space import Space

GRAPH_INSERTIONS: Final = Counter("polychrome_compactor_graph_insertions_total", "Rows added to graphs.")
UNPROVEN: Final = Counter(
    "polychrome_compactor_unproven_total", "Compactions refused because their digest did not prove."
)


@dataclass(frozen=True, slots=True)
class Parent:
    """The start of a compaction: a shard's state, the manifest that it points to, and that manifest's segments."""

    state: ShardState
    manifest: Manifest | None
    sources: list[Source]
    purged: bool = False
    """Whether no dead row may stay in its segments, because something is being erased from the collection."""

    @property
    def version(self) -> int:
        """The manifest's version, 0 when there is none."""
        return self.manifest.version if self.manifest else 0

    def segment_set(self) -> SegmentSet:
        return SegmentSet([source.segment for source in self.sources], [source.dead for source in self.sources])

    def after(self, applied: AppliedLog) -> list[Source]:
        """The segments, without the rows that the log deleted or replaced."""
        return [
            source.without(applied.deleted[number]) if number in applied.deleted else source
            for number, source in enumerate(self.sources)
        ]


@dataclass(frozen=True, slots=True)
class Merged:
    """The content of the manifest to be published: its segments, live records and digest (hex). `built` is the segment
    among them that is new and still in scratch, if there is one.
    """

    built: Built | None
    segments: list[SegmentRef]
    rows: int
    digest: str


def merge(
    parent: Parent,
    applied: AppliedLog,
    collection: str,
    shard: int,
    folder: Path,
    threads: int,
    check: Callable[[], None],
) -> Merged:
    """Plans, builds in `folder` and proves. Takes long: for a thread. `check` is called now and then: what it raises
    ends the work. Raises Corrupt when the result does not prove.
    """
    sources = parent.after(applied)
    planned = plan([_stats(source, parent.purged) for source in sources], applied.tail.num_rows)
    segment_id = f"{parent.version + 1:08d}-{uuid.uuid4().hex}"
    path = segment_path(collection, shard, segment_id)
    params = _graph_params(parent.state, threads)
    indexing = Indexing.of(parent.state.fixed)
    built = build(folder, segment_id, path, sources, planned, applied.tail, params, check, indexing)
    check()
    try:
        rows, digest = prove(parent.manifest, applied, sources, planned, built)
    except Corrupt:
        UNPROVEN.inc()
        raise
    refs = [SegmentRef.of(sources[number].info, sources[number].dead) for number in planned.kept]
    if built is not None:
        refs.append(SegmentRef.of(built.info, built.dead))
        GRAPH_INSERTIONS.inc(built.inserted_into_graph)
    return Merged(built, refs, rows, digest)


def _stats(source: Source, purged: bool) -> SegmentStats:
    held = source.segment.info
    size = sum(file.bytes for file in held.files)
    return SegmentStats(held.rows, len(source.dead), size, held.graph, source.damaged, purged)


def _graph_params(state: ShardState, threads: int) -> GraphParams:
    return GraphParams(
        space=Space(state.fixed["space"]),
        ef_construction=int(state.fixed["ef_construction"]),
        max_neighbors=int(state.fixed["max_neighbors"]),
        threads=threads,
    )
