"""Data that is lost under a running cluster: Redis' append-only file, all of it, its end, or all since a copy; and
processes that stand still meanwhile.
"""

import asyncio
import random
import shutil
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from polychrome.append_only.repair import check, cut_torn_end
from polychrome.local.process import Process
from polychrome.local.redis_server import answers, find_program
from tests.cluster.harness import Cluster
from tests.cluster.waiting import wait_until
from tests.faults.bank import Bank
from tests.faults.kills import Killer

CUT_BYTES: Final = (30_000, 60_000)
PAUSE_S: Final = (0.3, 3.0)
SAYS_WHAT_IS_LOST: Final = (
    r'"event":"(collections_without_a_row|manifest_given_up|acknowledged_operations_lost|rows_restored|tenants_restored'
    r'|state_rejoined|state_not_rejoined|state_restored|stream_fields_restored)"'
)
"""Errors that the log service and compactors log on such days."""


@dataclass
class Losses:
    """Loses data of a cluster, and counts by name how often."""

    cluster: Cluster
    chance: random.Random
    counts: dict[str, int] = field(default_factory=dict)
    _copy: Path | None = None

    @property
    def _append_only(self) -> Path:
        return self.cluster.directory / "redis" / "appendonlydir"

    async def all_of_redis(self) -> None:
        """An empty server comes back."""
        self._count("Redis lost")
        self.cluster.redis.kill()
        shutil.rmtree(self._append_only)
        await self._start()

    async def end_of_redis(self) -> None:
        """The server comes back without the last commands that it acknowledged."""
        self._count("Redis cut")
        self.cluster.redis.kill()
        newest = max(self._append_only.glob("*.incr.aof"))
        size = newest.stat().st_size
        with newest.open("r+b") as file:
            file.truncate(max(0, size - self.chance.randint(*CUT_BYTES)))
        for torn in await asyncio.to_thread(check, self._append_only, find_program(), "pc"):
            cut_torn_end(torn)  # as `polychrome up` does before it starts the server
        await self._start()

    def copy_redis(self) -> None:
        """Keeps a copy, taken while the server runs, for `older_redis`."""
        self._copy = self.cluster.directory / "older"
        shutil.rmtree(self._copy, ignore_errors=True)
        shutil.copytree(self._append_only, self._copy)

    async def older_redis(self) -> None:
        """The server comes back as it was when it was copied."""
        if self._copy is None:
            self.copy_redis()
            return
        self._count("Redis older")
        self.cluster.redis.kill()
        shutil.rmtree(self._append_only)
        shutil.copytree(self._copy, self._append_only)
        await self._start()

    @asynccontextmanager
    async def paused(self, process: Process | None = None) -> AsyncIterator[Process]:
        """A process that stands still, one chosen by chance if none is given."""
        process = process or self.chance.choice(self.cluster.processes)
        self._count(f"{process.spec.role} paused")
        process.send(signal.SIGSTOP)
        try:
            yield process
        finally:
            process.send(signal.SIGCONT)

    async def anything(self) -> None:
        """A loss or a pause, chosen by chance, perhaps one during the other."""
        lose = self.chance.choice((self.all_of_redis, self.end_of_redis, self.older_redis, None, None))
        if lose is None or self.chance.random() < 0.5:
            async with self.paused():
                await asyncio.sleep(self.chance.uniform(*PAUSE_S))
                if lose is not None:
                    await lose()
        else:
            await lose()

    async def _start(self) -> None:
        self.cluster.redis.process.start()
        await asyncio.to_thread(wait_until, lambda: answers(self.cluster.redis.url), "an answering Redis server")

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1


Disturb = Callable[[Losses, Killer], Awaitable[None]]


async def run_bank(cluster: Cluster, seed: int, disturb: Disturb) -> Bank:
    """Runs a bank while data is lost, and audits it afterwards. Raises when a promise is broken."""
    chance = random.Random(seed)
    losses, killer = Losses(cluster, chance), Killer(cluster, chance)
    async with Bank(cluster, seed) as bank:
        await bank.found()
        losses.copy_redis()
        work = asyncio.create_task(bank.run())
        disturbing = asyncio.ensure_future(disturb(losses, killer))
        # A broken promise ends the bank early; then there is nothing left to disturb.
        await asyncio.wait((work, disturbing), return_when=asyncio.FIRST_COMPLETED)
        bank.stop()
        await disturbing
        await work
        await asyncio.to_thread(cluster.wait_ready)
        await bank.check_transfers()
        await bank.wait_until_indexed()
        await bank.check_sum()
        await killer.restart_queryworkers()
        await bank.check_sum()
        return bank
