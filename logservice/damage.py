"""The watch over the registry of damage in the log service: it shows the registry, has damaged segments rewritten, and
clears what does not count any more.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Container, Iterable, Sequence
from typing import Final, NamedTuple

from shared.catalog.damage import SEGMENT_KINDS, Damage, DamageKind, Damages
from shared.log.jobs import Jobs
from shared.log.log import Log
from shared.log.state import ShardState, position_of
from shared.objects.keys import parse_manifest_key
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
    return {
        ShardId(each.collection, each.shard)
        for each in damages
        if each.kind in SEGMENT_KINDS and each.shard is not None
    }


def is_settled(damage: Damage, state: ShardState) -> bool:
    """Whether the present state of the damage's shard does not need the thing any more: an entry that was trimmed, a
    manifest that others followed.
    """
    name = damage.name.rpartition("/")[2]
    match damage.kind:
        case DamageKind.ENTRY if name != "log":
            return position_of(name) < state.trimmed
        case DamageKind.MANIFEST:
            key = parse_manifest_key(damage.name)
            return key is not None and state.pointer is not None and key[2] < state.pointer.version
    return False


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
        """Brings the metric up to date, clears what does not count any more, and queues what is to be rewritten."""
        damages = await self._damages.measure()
        shards = to_rewrite(await self._without_settled(damages))
        now_s = self._clock.monotonic()
        self._queued = {shard: at for shard, at in self._queued.items() if shard in shards}
        for shard in shards:
            if now_s - self._queued.get(shard, float("-inf")) >= REWRITE_AGAIN_S:
                await self._jobs.put(*shard, REWRITE_PRIORITY)
                self._queued[shard] = now_s

    async def _without_settled(self, damages: Sequence[Damage]) -> list[Damage]:
        """The damages that still count; the others are cleared. Of a deleted collection all objects are garbage. A
        state that is missing is no sign of a deletion: it may be what is damaged.
        """
        places = sorted({(damage.collection, damage.shard or 0) for damage in damages if damage.collection})
        states = dict(zip(places, await self._log.states(places, {}), strict=True))
        buried = await self._graves() if None in states.values() else ()

        def is_over(damage: Damage) -> bool:
            if not damage.collection:
                return False
            state = states[damage.collection, damage.shard or 0]
            if state is None:
                return damage.collection in buried
            return state.deleted or is_settled(damage, state)

        over = [damage.name for damage in damages if is_over(damage)]
        if over:
            log.info("damage_cleared", objects=over)
            await self._damages.clear(over)
        return [damage for damage in damages if damage.name not in over]
