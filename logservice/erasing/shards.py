"""Whether the shards of a collection are clean of what is to be erased (`logservice.erasing.remains`)."""

from __future__ import annotations

from logservice.erasing.remains import CleanShard
from shared.cluster.placement import Layout
from shared.log.log import Log
from shared.log.state import ShardState
from shared.manifest.store import ManifestStore


async def clean_shards(
    log: Log, manifests: ManifestStore, collection: str, layout: Layout, barrier: int
) -> dict[int, CleanShard] | None:
    """The shards of the layout by their numbers; None while one of them is not clean, its log is not trimmed up to the
    barrier, or the collection is getting other shards. Raises Unavailable, Corrupt.
    """
    found: dict[int, CleanShard] = {}
    for number, state in zip(
        layout.numbers, await log.states([(collection, number) for number in layout.numbers]), strict=True
    ):
        if state is None or not _is_trimmed(state, barrier) or state.pointer is None:
            return None
        manifest = await manifests.load(collection, number, state.pointer)
        if any(segment.dead for segment in manifest.segments):
            return None
        found[number] = CleanShard(manifest.version, frozenset(segment.info.path for segment in manifest.segments))
    return found


def _is_trimmed(state: ShardState, barrier: int) -> bool:
    covered = state.pointer is not None and state.pointer.covers >= barrier
    return covered and state.trimmed >= barrier and state.kept_from is None and not state.routing.unfinished
