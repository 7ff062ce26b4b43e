"""From a committed manifest to a base that views stand on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from queryworker.shards.segment_pool import SegmentPool
from queryworker.view.shard_view import OpenManifest
from shared.log.state import ShardState
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.records.indexing import Indexing
from shared.segment.graph import GraphParams
from shared.segment.reader import Segment
from shared.segment.segment_set import SegmentSet
from shared.vectors.space import Space


class Loader:
    """Loads manifests and their segments."""

    def __init__(self, manifests: ManifestStore, pool: SegmentPool) -> None:
        self._manifests = manifests
        self._pool = pool

    async def load(self, collection: str, shard: int, state: ShardState) -> OpenManifest:
        """The base of the committed manifest; an empty one where there is none. Raises Corrupt, Unavailable."""
        graph = GraphParams(
            space=Space(state.fixed["space"]),
            ef_construction=int(state.fixed["ef_construction"]),
            max_neighbors=int(state.fixed["max_neighbors"]),
            threads=1,
        )
        indexing = Indexing.of(state.fixed)
        if state.pointer is None:
            return OpenManifest(None, SegmentSet([], []), state.dimension, graph, 0, indexing)
        manifest = await self._manifests.load(collection, shard, state.pointer)
        segments = await asyncio.gather(*(self._pool.open(ref.info) for ref in manifest.segments))
        stack = await asyncio.to_thread(_stack, manifest, segments)
        size = sum(file.bytes for ref in manifest.segments for file in ref.info.files)
        return OpenManifest(state.pointer, stack, manifest.dimension or state.dimension, graph, size, indexing)


def _stack(manifest: Manifest, segments: Sequence[Segment]) -> SegmentSet:
    return SegmentSet(segments, [ref.bitmap() for ref in manifest.segments])
