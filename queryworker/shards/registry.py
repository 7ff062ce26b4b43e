"""The shards that this worker has in memory, and which of them are evicted."""

from __future__ import annotations

import weakref
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, NamedTuple

from prometheus_client import Gauge

from queryworker.shards.damaged_reads import DamagedReads
from queryworker.shards.manifest_loader import READS_REFUSED
from queryworker.shards.past_views import PastViews
from queryworker.shards.shard import ServedShard
from queryworker.view.read_view import ReadView
from shared.catalog.damage import DamageReporter
from shared.cluster.placement import ShardKey
from shared.errors import Corrupt, Damaged, Gone, PolychromeError, StaleGeneration, StaleRead, Unavailable
from shared.log.state import position_of
from shared.log.verification import DamagedEntry
from shared.process import telemetry
from shared.process.clock import Clock
from shared.records.model import ReadLevel
from shared.rpc import messages
from shared.segment.format import SegmentInfo

SHARDS: Final = Gauge("polychrome_queryworker_shards", "Shards in memory.")
SHARD_BYTES: Final = Gauge("polychrome_queryworker_shard_bytes", "What they hold, mapped files included.")
TAIL_ROWS: Final = Gauge("polychrome_queryworker_tail_slots", "Record versions in the tails of all shards.")

EVICTION_INTERVAL_S: Final = 5.0
"""Pause between two looks for shards to evict."""

log = telemetry.get_logger(__name__)


class ShardUsage(NamedTuple):
    """The facts that eviction is decided on: about how much memory a shard takes, and how long ago it was read."""

    key: ShardKey
    bytes: int
    idle_s: float


def evictions(usages: Sequence[ShardUsage], bytes_max: int, idle_max_s: float) -> list[ShardKey]:
    """Shards to evict: all that are idle for longer than `idle_max_s`, then the longest idle while the rest takes more
    than `bytes_max`. The shard that was read last always stays: one larger than the budget could not be served at all
    otherwise. Pure.
    """
    evicted: list[ShardKey] = []
    total = sum(usage.bytes for usage in usages)
    by_idleness = sorted(usages, key=lambda usage: usage.idle_s, reverse=True)
    for number, usage in enumerate(by_idleness):
        read_last = number == len(by_idleness) - 1
        if usage.idle_s > idle_max_s or (total > bytes_max and not read_last):
            evicted.append(usage.key)
            total -= usage.bytes
    return evicted


def damaged(shard: messages.Shard, error: Corrupt) -> Damaged:
    """The error for clients of a read of the shard that has met damage."""
    where = f"shard {shard.shard} of collection {shard.collection}"
    return Damaged(f"{where}, {error.name}" if error.name else where)


class ShardRegistry:
    """The shards in memory. A shard is taken into memory when it is first read."""

    def __init__(
        self,
        new_shard: Callable[[str, int], ServedShard],
        clock: Clock,
        bytes_max: int,
        idle_max_s: float,
        damage: DamageReporter,
        past: PastViews,
        recheck: Callable[[SegmentInfo], Awaitable[Mapping[str, str]]],
    ) -> None:
        """`new_shard` makes a shard of the id of a collection and the shard's number. `past` has what the views of a
        shard do not reach back to. `recheck` is that of the segments (`queryworker.shards.damaged_reads`).
        """
        self._damaged_reads = DamagedReads(recheck, damage, clock)
        self._past = past
        self._damage = damage
        self._damaged: dict[ShardKey, tuple[str, int]] = {}
        """The names of what reads of shards have found damaged last, and the positions that these could not reach."""
        self._new_shard = new_shard
        self._clock = clock
        self._bytes_max = bytes_max
        self._idle_max_s = idle_max_s
        self._shards: dict[ShardKey, ServedShard] = {}
        self._removed: weakref.WeakSet[ServedShard] = weakref.WeakSet()
        """Shards that were evicted or are gone and may still have work in the background."""

    async def read_view(self, wanted: messages.Shard) -> ReadView:
        """The shard as of the position, and as fresh, as the request wants to read it. Raises Gone, StaleGeneration,
        StaleRead, Unavailable, and Damaged, which is reported.
        """
        key = (wanted.collection, wanted.shard)
        shard = self._shards.get(key)
        if shard is None:
            shard = self._shards[key] = self._new_shard(*key)
        try:
            view = await self._view(shard, wanted)
        except (Gone, StaleGeneration):
            if self._shards.get(key) is shard:
                self._remove(key)
            raise
        except Corrupt as error:
            position = position_of(error.entry_id) if isinstance(error, DamagedEntry) else 0
            self._damaged[key] = self._damage.met(error, READS_REFUSED, *key), position
            raise damaged(wanted, error) from error
        if self._damaged and (found := self._damaged.get(key)) is not None and view.position > found[1]:
            del self._damaged[key]
            self._damage.whole(found[0])
        return view

    async def failed(self, wanted: messages.Shard, view: ReadView, error: Exception) -> Exception:
        """The error for the caller of a read that failed over this view, which `read_view` gave. Damage is reported,
        and the shard gets another view where files of this one are damaged on the local disk; so they may be when the
        error is one that no caller is to expect.
        """
        expected = isinstance(error, PolychromeError) and not isinstance(error, Corrupt)
        if expected or isinstance(error, Damaged):
            return error
        key = (wanted.collection, wanted.shard)
        if isinstance(error, Corrupt):
            self._damaged[key] = self._damage.met(error, READS_REFUSED, *key), view.position - 1
        try:
            name = await self._damaged_reads.examine(key, view)
        except Unavailable as away:
            log.warning("view_not_examined", collection=key[0], shard=key[1], message=away.message)
            name = ""
        if name and (shard := self._shards.get(key)) is not None:
            shard.reload()
        if isinstance(error, Corrupt):
            return damaged(wanted, error)
        return damaged(wanted, Corrupt(str(error), name)) if name else error

    async def _view(self, shard: ServedShard, wanted: messages.Shard) -> ReadView:
        try:
            return await shard.read_view(wanted.as_of, fresh=wanted.read_level is not ReadLevel.INDEX_ONLY)
        except StaleRead:
            if not wanted.past or wanted.as_of is None:
                raise
        return await self._past.read_view(wanted.collection, wanted.shard, wanted.as_of, await shard.state())

    def unchecked_view(self, wanted: messages.Shard) -> ReadView | None:
        """The object that `read_view` will return if a currency check finds nothing new; None where nothing can be said
        without one.
        """
        shard = self._shards.get((wanted.collection, wanted.shard))
        newest = wanted.as_of is None and wanted.read_level is not ReadLevel.INDEX_ONLY
        return shard.unchecked_view() if shard is not None and newest else None

    def evict(self) -> None:
        """Let go of what need not be held any longer (`evictions`)."""
        now = self._clock.monotonic()
        usages: list[ShardUsage] = []
        for key, shard in self._shards.items():
            shard.views.drop_expired()
            usages.append(ShardUsage(key, shard.views.bytes, now - shard.used_s))
        for key in evictions(usages, self._bytes_max, self._idle_max_s):
            # Not closed: requests that still wait for it get their answers, and then it goes.
            evicted = self._remove(key)
            log.info("shard_evicted", collection=key[0], shard=key[1], bytes=evicted.views.bytes)
        SHARDS.set(len(self._shards))
        SHARD_BYTES.set(sum(shard.views.bytes for shard in self._shards.values()))
        TAIL_ROWS.set(sum(shard.tail_rows for shard in self._shards.values()))

    def release(self, key: ShardKey) -> None:
        """Lets go of a shard, and of its past: segments that it uses are being erased. It is loaded anew when it is
        read next.
        """
        self._past.forget(key)
        if key in self._shards:
            self._remove(key).views.clear()

    async def close(self) -> None:
        """Stop what all shards do in the background, those that were evicted included, and let go of them."""
        await self._damaged_reads.close()
        shards = [*self._shards.values(), *self._removed]
        self._shards.clear()
        for shard in shards:
            await shard.close()

    def _remove(self, key: ShardKey) -> ServedShard:
        self._damaged.pop(key, None)
        shard = self._shards.pop(key)
        self._removed.add(shard)
        return shard
