"""The initial manifests of a new layout's shards: the present segments, seen through other tombstones. Pure.

Nothing is moved: a row is alive in the one new shard that its id hashes to, and dead in all others. Their first
compactions then rewrite what is mostly dead, as the merge policy does with any segment.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from pyroaring import BitMap

from compactor.policy import SegmentStats
from compactor.sources import Source
from shared.cluster.placement import shard_of
from shared.manifest.model import Manifest, SegmentRef
from shared.objects.keys import shard_prefix
from shared.records.digest import MODULUS, as_bytes, to_hex, total


@dataclass(slots=True)
class InitialManifest:
    """The content of a new shard's initial manifest: segments with their dead rows, number of live rows, and the sum of
    their digests, which is not reduced by `MODULUS` yet.
    """

    segments: list[SegmentRef] = field(default_factory=list)
    rows: int = 0
    digest: int = 0

    @property
    def digest_hex(self) -> str:
        return to_hex(self.digest % MODULUS)


def initial_manifests(sources: Sequence[Source], shards: int) -> list[InitialManifest]:
    """The initial manifest of each new shard, made of the segments of all present ones. Takes long: for a thread."""
    found = [InitialManifest() for _ in range(shards)]
    for source in sources:
        records = source.segment.records
        homes = shard_of(records.column("id").to_pylist(), shards)
        digests = as_bytes(records.column("digest"))
        live = source.live_mask()
        for home, manifest in enumerate(found):
            mine = live & (homes == home)
            rows = int(np.count_nonzero(mine))
            if rows:
                dead = BitMap(np.flatnonzero(~mine).astype(np.uint32))
                manifest.segments.append(SegmentRef.of(source.info, dead))
                manifest.rows += rows
                manifest.digest += total(digests[mine])
    return found


def has_foreign_segments(manifest: Manifest) -> bool:
    """Whether the manifest still names segments of other shards that the merge policy would rewrite."""
    own = shard_prefix(manifest.collection, manifest.shard)
    return any(
        SegmentStats(ref.info.rows, ref.dead, bytes=0, graph=ref.info.graph).worn
        for ref in manifest.segments
        if not ref.info.path.startswith(own)
    )
