"""The live query workers, and the order in which they are asked for a shard.

Live workers are ranked per shard by rendezvous hashing, so that a shard's reads find a warm cache. Workers that have
just failed come last, and so do those that are still loading the shard (`frontend.read.prefetch`); among the first in
rank the less busy one is asked (`frontend.read.replicas`).
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Final

from prometheus_client import Counter

from frontend.read.prefetch import Prefetch
from frontend.read.replicas import call_order
from shared.cluster.placement import rank
from shared.errors import PolychromeError, Unavailable
from shared.process.telemetry import get_logger

if TYPE_CHECKING:
    from shared.cluster.membership import Member, Membership
    from shared.process.clock import Clock
    from shared.rpc.client import RpcClient

RANKS_MAX: Final = 10_000
"""Shards whose ranking is remembered; it is made anew for all when the members change."""

SUSPECT_CALLS: Final = 1 << 30
"""Calls in flight that a worker which has just failed is taken to have: more than any other."""

FAILOVERS = Counter(
    "polychrome_frontend_worker_failovers_total", "Calls that went on to another query worker.", ["why"]
)

log = get_logger(__name__)


class Candidates:
    """The query workers, as membership listed them last. A worker that failed is asked last for `suspect_s` seconds."""

    def __init__(
        self, membership: Membership, rpc: RpcClient, clock: Clock, *, replicas: int, suspect_s: float
    ) -> None:
        self._membership = membership
        self._rpc = rpc
        self._clock = clock
        self._replicas = replicas
        self._suspect_s = suspect_s
        self._prefetch = Prefetch(rpc, replicas)
        self._members: dict[str, Member] = {}  # those that take requests
        self._listed: frozenset[str] = frozenset()  # and those that drain
        self._ranks: dict[str, list[str]] = {}  # by shard, as of these members
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        self._suspect_until: dict[str, float] = {}

    @property
    def any_ready(self) -> bool:
        """Whether a worker is known that takes requests."""
        return bool(self._members)

    def listed(self, worker: Member) -> bool:
        """Whether the worker is alive by what membership said last: it may be draining."""
        return worker.id in self._listed

    def ranked(self, key: str) -> list[Member]:
        """The workers in the order in which to ask them for the shard `key`, which is noted as read."""
        self._prefetch.used(key)
        if len(self._members) == 1:
            return list(self._members.values())
        ranked = self._ranks.get(key)
        if ranked is None:
            if len(self._ranks) >= RANKS_MAX:
                self._ranks.clear()
            ranked = self._ranks[key] = rank(key, list(self._members))
        if self._suspect_until:
            ranked = sorted(ranked, key=self._suspect)
        loading = self._prefetch.loading(key)
        if loading:
            ranked = sorted(ranked, key=loading.__contains__)
        order = call_order(ranked, self._replicas, self._calls_open, random.randrange)
        return [self._members[worker] for worker in order]

    def distrust(self, worker: Member, error: PolychromeError) -> None:
        """The worker has failed with `error`."""
        FAILOVERS.labels(error.code).inc()
        now = self._clock.monotonic()
        if self._suspect_until.get(worker.id, 0.0) <= now:  # one line per failure, not per request that met it
            log.info("worker_failed", worker=worker.id, address=worker.address, code=error.code, message=error.message)
        self._suspect_until[worker.id] = now + self._suspect_s

    async def refresh(self, max_age_s: float) -> None:
        """Reads membership, unless it was read less than `max_age_s` ago. Raises Unavailable when Redis is away."""
        async with self._reading:
            if self._read_at is not None and self._clock.monotonic() - self._read_at < max_age_s:
                return
            found = await self._membership.members()
            members = {member.id: member for member in found if not member.draining}
            before, self._members = self._members, members
            self._listed = frozenset(member.id for member in found)
            if members.keys() != before.keys():
                self._ranks.clear()
                self._prefetch.changed(list(before), members)
            self._suspect_until = {
                worker: until for worker, until in self._suspect_until.items() if worker in self._members
            }
            self._read_at = self._clock.monotonic()

    async def poll(self, every_s: float) -> None:
        """A loop, for ever: keeps the members fresh."""
        while True:
            try:
                await self.refresh(max_age_s=0.0)
            except Unavailable as error:
                log.warning("membership_unavailable", message=error.message)
            await self._clock.sleep(every_s)

    def _suspect(self, worker: str) -> bool:
        return self._suspect_until.get(worker, 0.0) > self._clock.monotonic()

    def _calls_open(self, worker: str) -> int:
        return SUSPECT_CALLS if self._suspect(worker) else self._rpc.calls_open(self._members[worker].address)
