"""Watches the shards that were written: queues the compaction of those that are due, and hands those on to the trimmer
whose log can be trimmed.

A collection's only shard is queued when it is due. A shard of several that is due begins a round, in which all of them
are compacted up to one position (`logservice.scheduling.rounds`).

The watch list is in memory, and is found again by `sweep`: a new leader begins with an empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge

from logservice.scheduling.policy import Policy, ShardBacklog, priority
from logservice.scheduling.rounds import Rounds
from logservice.scheduling.turns import DueShard, Turns
from shared.catalog import Catalog
from shared.log.jobs import REBUILD, Jobs
from shared.log.log import Log
from shared.log.state import Pointer, ShardState
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

DIRTY_PER_TAKE: Final = 1000
"""Marks of written shards that are taken from Redis at a time."""
REBUILD_PRIORITY: Final = 1000.0
"""Priority of a step of a rebuild. It goes before all compactions: it is short, and shards wait for it."""

log = get_logger(__name__)

WATCHED: Final = Gauge("polychrome_logservice_watched_shards", "Shards with something to compact or to trim.")
BACKLOG_OPS: Final = Gauge("polychrome_logservice_backlog_ops", "Operations in the logs of the watched shards.")
BACKLOG_BYTES: Final = Gauge("polychrome_logservice_backlog_bytes", "Bytes in the logs of the watched shards.")
OLDEST_S: Final = Gauge("polychrome_logservice_oldest_write_seconds", "Age of the oldest uncompacted write.")
QUEUED: Final = Gauge("polychrome_logservice_jobs_queued", "Compaction jobs that wait.")
LEASED: Final = Gauge("polychrome_logservice_jobs_leased", "Compaction jobs that a compactor holds.")
PUT: Final = Counter("polychrome_logservice_jobs_put_total", "Times that a due shard was queued.")

Shard = tuple[str, int]
"""Collection id and number; of a rebuild, the number REBUILD."""

Trim = Callable[[Shard, Pointer], None]
"""Called with a shard whose committed manifest, which the pointer names, covers more than was trimmed."""


@dataclass(slots=True)
class _Watch:
    """Time since which the shard has uncompacted writes, and when its tail or pointer was last seen to move
    (monotonic). `due` is the shard as it was when it was due last.
    """

    since_s: float
    moved_s: float
    due: DueShard | None = None
    tail: str = ""
    version: int = -1


class Scheduler:
    """Keeps the watch list of one leader. `tenant_of` gives the tenant of a collection by its id, empty when it is not
    known. Everything raises Unavailable.
    """

    def __init__(
        self,
        catalog: Catalog,
        log: Log,
        jobs: Jobs,
        rounds: Rounds,
        policy: Policy,
        clock: Clock,
        trim: Trim,
        tenant_of: Callable[[str], str] = lambda _: "",
    ) -> None:
        self._tenant_of = tenant_of
        self._turns = Turns()
        self._catalog = catalog
        self._log = log
        self._jobs = jobs
        self._rounds = rounds
        self._policy = policy
        self._clock = clock
        self._trim = trim
        self._watched: dict[Shard, _Watch] = {}

    async def sweep(self) -> None:
        """Puts every shard on the watch list that has something to compact or to trim, whether its writer marked it or
        died before.
        """
        damaged: dict[str, str] = {}
        async for collection in self._catalog.collections.all(damaged):
            shards = list(zip(collection.layout.numbers, collection.written, strict=True))
            if collection.rebuild:
                shards += zip(collection.rebuild.layout.numbers, collection.rebuild.written, strict=True)
            self._watch((collection.id, shard) for shard, written in shards if written)
            if not collection.rooted:
                self._rounds.watch(collection.id, collection.layout)
            if await self._catalog.collections.want_shards(collection) or collection.rebuild:
                self._watch([(collection.id, REBUILD)])
        _report_damaged(damaged)

    async def tick(self) -> None:
        """Takes the new marks, checks the state of every watched shard, and queues what is due."""
        while True:
            marks = await self._jobs.take_dirty(DIRTY_PER_TAKE)
            self._watch(marks)
            if len(marks) < DIRTY_PER_TAKE:
                break
        shards = list(self._watched)
        damaged: dict[str, str] = {}
        states = await self._log.states(shards, damaged)
        _report_damaged(damaged)  # and they are watched no more
        now = self._clock.monotonic()
        alone: list[tuple[str, int, float]] = []
        due: dict[str, float] = {}
        for shard, state in zip(shards, states, strict=True):
            if shard[1] == REBUILD:
                await self._check_rebuild(shard, state)
                continue
            urgency = self._check(shard, state, now)
            if state is not None and state.serves and state.routing.layout.count > 1:
                self._rounds.watch(shard[0], state.routing.layout)
                due |= {} if urgency is None else {shard[0]: max(urgency, due.get(shard[0], urgency))}
            elif urgency is not None:
                alone.append((*shard, urgency))
        backlogs = {shard: state.bytes_backlog for shard, state in zip(shards, states, strict=True) if state}
        await self._put_in_turns([*alone, *await self._rounds.step(due)], backlogs)
        await self._measure(states, now)

    async def _put_in_turns(self, ready: Iterable[tuple[str, int, float]], backlogs: Mapping[Shard, int]) -> None:
        """Queues the shards, of these urgencies, so that tenants take turns."""
        due = [
            DueShard(
                collection_id, number, urgency, self._tenant_of(collection_id), backlogs.get((collection_id, number), 0)
            )
            for collection_id, number, urgency in ready
        ]
        for shard, urgency in self._turns.order(due):
            watch = self._watched.get((shard.collection_id, shard.number))
            if watch is not None:
                watch.due = shard
            await self._put(shard.collection_id, shard.number, urgency)

    def _watch(self, shards: Iterable[Shard]) -> None:
        now = self._clock.monotonic()
        for shard in shards:
            self._watched.setdefault(shard, _Watch(now, now))

    async def _put(self, collection_id: str, shard: int, urgency: float) -> None:
        if await self._jobs.put(collection_id, shard, urgency):
            PUT.inc()

    def _check(self, shard: Shard, state: ShardState | None, now: float) -> float | None:
        """The urgency of a watched shard's compaction, None when it is not due. Hands the shard to the trimmer or takes
        it off the list.
        """
        if state is None or state.deleted or not (state.uncompacted or state.trimmable):
            del self._watched[shard]
            return None
        watch = self._watched[shard]
        version = state.pointer.version if state.pointer else 0
        if watch.version != version:
            # A compaction took the older writes along; what is left came about then.
            watch.since_s = now if watch.version >= 0 else watch.since_s
            watch.version = version
            if watch.due is not None:
                self._turns.charge(watch.due.tenant, watch.due.cost)
                watch.due = None
        if watch.tail != state.tail:
            watch.tail, watch.moved_s = state.tail, now
        if state.pointer is not None and state.trimmable:
            self._trim(shard, state.pointer)
        if not state.uncompacted:
            return None
        return priority(
            ShardBacklog(
                ops=state.ops_backlog,
                bytes=state.bytes_backlog,
                exact=not state.trimmable,
                age_s=now - watch.since_s,
                quiet_s=now - watch.moved_s,
            ),
            self._policy,
        )

    async def _check_rebuild(self, shard: Shard, state: ShardState | None) -> None:
        """Queues the next step of a rebuild, or takes it off the list when there is none."""
        if state is None or state.deleted:
            del self._watched[shard]
        elif state.routing.unfinished:
            await self._jobs.put(*shard, REBUILD_PRIORITY)
        else:
            del self._watched[shard]
            await self._catalog.changes.count()  # a snapshot should know the new layout soon

    async def _measure(self, states: list[ShardState | None], now: float) -> None:
        WATCHED.set(len(self._watched))
        BACKLOG_OPS.set(sum(state.ops_backlog for state in states if state))
        BACKLOG_BYTES.set(sum(state.bytes_backlog for state in states if state))
        OLDEST_S.set(now - min((watch.since_s for watch in self._watched.values()), default=now))
        queued, leased = await self._jobs.counts()
        QUEUED.set(queued)
        LEASED.set(leased)


def _report_damaged(damaged: Mapping[str, str]) -> None:
    """Names states that cannot be read: their collections are not compacted, all others are."""
    for collection_id, what in damaged.items():
        log.error("state_unreadable", collection=collection_id, what=what)
