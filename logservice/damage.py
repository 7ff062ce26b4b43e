"""The watch over the registry of damage in the log service: it shows the registry, has damaged segments rewritten, and
clears what does not count any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from typing import Final, NamedTuple

from shared.catalog.damage import Damage, DamageKind, Damages
from shared.log.jobs import Jobs
from shared.log.log import Log
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

REWRITE_PRIORITY: Final = 500.0
"""Priority of a compaction that rewrites a damaged segment: behind the steps of rebuilds, before most others."""

REWRITE_AGAIN_S: Final = 60.0
"""Pause after which the compaction of a shard is queued again whose damage is still in the registry."""

log = get_logger(__name__)


class ShardId(NamedTuple):
    """A shard: id of the collection, number."""

    collection: str
    shard: int


def to_rewrite(damages: Iterable[Damage]) -> set[ShardId]:
    """The shards with damaged segments. Records are among them: a compactor may have a whole copy of them."""
    kinds = (DamageKind.DERIVED, DamageKind.RECORDS)
    return {ShardId(each.collection, each.shard) for each in damages if each.kind in kinds and each.shard is not None}


class DamageWatch:
    """Looks at the registry of one leader's cluster. `step` raises Unavailable and Backoff."""

    def __init__(
        self, damages: Damages, log_: Log, jobs: Jobs, graves: Callable[[], Awaitable[Container[str]]], clock: Clock
    ) -> None:
        """`graves` gives the ids of the collections that the catalog deleted and that may have objects still."""
        self._damages = damages
        self._log = log_
        self._jobs = jobs
        self._graves = graves
        self._clock = clock
        self._queued: dict[ShardId, float] = {}
        """When the compaction of each shard was queued last (monotonic)."""

    async def step(self) -> None:
        """Brings the metric up to date, clears what is of deleted collections, and queues what is to be rewritten."""
        damages = await self._damages.measure()
        shards = to_rewrite(await self._without_deleted(damages))
        now_s = self._clock.monotonic()
        self._queued = {shard: at for shard, at in self._queued.items() if shard in shards}
        for shard in shards:
            if now_s - self._queued.get(shard, float("-inf")) >= REWRITE_AGAIN_S:
                await self._jobs.put(*shard, REWRITE_PRIORITY)
                self._queued[shard] = now_s

    async def _without_deleted(self, damages: Sequence[Damage]) -> list[Damage]:
        """The damages of collections that were not deleted. Those of others are cleared: their objects are garbage. A
        state that is missing is no sign of a deletion: it may be what is damaged.
        """
        found = list(damages)
        collections = sorted({damage.collection for damage in found if damage.collection})
        states = await self._log.states([(collection, 0) for collection in collections])
        buried = await self._graves() if None in states else ()
        deleted = {
            collection
            for collection, state in zip(collections, states, strict=True)
            if (collection in buried if state is None else state.deleted)
        }
        gone = [damage.name for damage in found if damage.collection in deleted]
        if gone:
            log.info("damage_cleared", objects=gone)
            await self._damages.clear(gone)
        return [damage for damage in found if damage.collection not in deleted]
