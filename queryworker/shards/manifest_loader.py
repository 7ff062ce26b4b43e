"""Opens committed manifests: reads them from the bucket and opens their segments."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from queryworker.shards.segment_pool import SegmentPool
from queryworker.view.shard_view import OpenManifest
from shared.catalog.damage import DamageReporter
from shared.errors import Corrupt
from shared.history.past_manifests import PastManifest
from shared.log.state import ShardState
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.process.concurrency import together
from shared.records.indexing import Indexing
from shared.segment.graph import GraphParams
from shared.segment.reader import Segment
from shared.segment.segment_set import SegmentSet
from shared.vectors.space import Space

READS_REFUSED: Final = "reads of the shard are refused"
MENDED_HERE: Final = "the segment is served without it, and is to be rewritten"


class BucketManifestLoader:
    """Loads manifests and their segments from the bucket: a `queryworker.shards.view_loader.ManifestLoader`."""

    def __init__(self, manifests: ManifestStore, segments: SegmentPool, damage: DamageReporter) -> None:
        self._manifests = manifests
        self._segments = segments
        self._damage = damage

    async def load(self, collection: str, shard: int, state: ShardState) -> OpenManifest:
        """The committed manifest that the state names, with its segments opened; one without segments where no manifest
        was committed. Raises Corrupt, which is reported, and Unavailable.
        """
        try:
            return await self._load(collection, shard, state)
        except Corrupt as error:
            self._damage.met(error, READS_REFUSED, collection, shard)
            raise

    async def _load(self, collection: str, shard: int, state: ShardState) -> OpenManifest:
        if state.pointer is None:
            return await self.load_past(None, state)
        manifest = await self._manifests.load(collection, shard, state.pointer)
        return await self.load_past(PastManifest(manifest, state.pointer), state)

    async def load_past(self, past: PastManifest | None, state: ShardState) -> OpenManifest:
        """The manifest with its segments opened; None: one without segments. Raises Corrupt, Unavailable."""
        graph = GraphParams(
            space=Space(state.fixed["space"]),
            ef_construction=int(state.fixed["ef_construction"]),
            max_neighbors=int(state.fixed["max_neighbors"]),
            threads=1,
        )
        indexing = Indexing.of(state.fixed)
        if past is None:
            return OpenManifest(None, SegmentSet([], []), state.dimension, graph, 0, indexing)
        manifest, pointer = past
        opened = await together([self._segments.open(ref.info, indexing) for ref in manifest.segments])
        self._report(manifest)
        segments = await asyncio.to_thread(_segment_set, manifest, opened)
        size = sum(file.bytes for ref in manifest.segments for file in ref.info.files)
        return OpenManifest(pointer, segments, manifest.dimension or state.dimension, graph, size, indexing)

    def _report(self, manifest: Manifest) -> None:
        """Says of a manifest that serves what of it the bucket has damaged nevertheless, and what is whole again."""
        self._damage.whole(manifest.key)
        for ref in manifest.segments:
            damaged = self._segments.damaged(ref.info.id)
            for file in ref.info.files:
                key, what = ref.info.key(file.name), damaged.get(file.name)
                if what is None:
                    self._damage.whole(key)
                else:
                    where = manifest.collection, manifest.shard
                    self._damage.found(key, what, MENDED_HERE, collection=where[0], shard=where[1])


def _segment_set(manifest: Manifest, segments: Sequence[Segment]) -> SegmentSet:
    return SegmentSet(segments, [ref.bitmap() for ref in manifest.segments])
