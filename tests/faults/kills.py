"""Who is killed, and how it comes back. Every kill is SIGKILL of one process; it is started again after a moment, by
us: nothing else in a test cluster would.
"""

import asyncio
import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from compactor.checkpoints import AnyStep, Step
from polychrome.local.process import Process, ProcessSpec
from polychrome.local.redis_server import answers
from tests.cluster.harness import Cluster
from tests.cluster.waiting import wait_until

ROLES: Final = ("frontend", "logservice", "compactor", "queryworker")
DOWN_S_MAX: Final = 1.0
STEP_TIMEOUT_S: Final = 15.0


@dataclass
class Killer:
    """`kills` counts by name of what was killed."""

    cluster: Cluster
    chance: random.Random
    kills: dict[str, int] = field(default_factory=dict)

    @property
    def total(self) -> int:
        return sum(self.kills.values())

    async def anything(self) -> None:
        """One kill of one thing, chosen by chance."""
        choice = self.chance.choice((*ROLES, "redis", "compactor at a step", "all query workers"))
        match choice:
            case "redis":
                await self.redis()
            case "compactor at a step":
                await self.compactor_at(self.chance.choice(list(Step)))
            case "all query workers":
                await self.every_queryworker()
            case role:
                await self.one(role)

    async def one(self, role: str) -> None:
        process = self.chance.choice(self.cluster.role(role))
        self._killed(role, process)
        await asyncio.sleep(self.chance.uniform(0.0, DOWN_S_MAX))
        await self._back(process)

    async def restart_queryworkers(self) -> None:
        """One after the other; what each serves afterwards comes from the bucket and the log."""
        for process in self.cluster.role("queryworker"):
            self._killed("queryworker", process)
            await self._back(process)

    async def every_queryworker(self) -> None:
        """Nothing is cached anywhere afterwards."""
        workers = self.cluster.role("queryworker")
        for process in workers:
            self._killed("queryworker", process)
        await asyncio.gather(*map(self._back, workers))

    async def redis(self, meanwhile: Callable[[Path], None] = lambda _: None) -> None:
        """`meanwhile` is done to its data, while it is down."""
        self.kills["redis"] = self.kills.get("redis", 0) + 1
        redis = self.cluster.redis
        redis.kill()
        meanwhile(self.cluster.directory / "redis")
        redis.process.start()
        await asyncio.to_thread(wait_until, lambda: answers(redis.url), "an answering Redis server")

    async def compactor_at(self, step: AnyStep, process: Process | None = None) -> bool:
        """Dies between two steps of a job, its lease still running. False: no job took it to that step in time."""
        process = process or self.chance.choice(self.cluster.role("compactor"))
        plain = process.spec
        pause = {"POLYCHROME_COMPACTOR_PAUSE_AT": f"{step}:60", "POLYCHROME_LOG_LEVEL": "debug"}
        self._killed("compactor", process)
        process.spec = ProcessSpec(plain.name, plain.role, plain.argv, {**plain.environ, **pause})
        logged = process.log_path.stat().st_size
        await self._back(process)
        reached = await self._logs(process, logged, f'"step":"{step}"')
        self._killed(f"compactor at {step}", process)
        process.spec = plain
        await self._back(process)
        return reached

    async def _logs(self, process: Process, offset: int, text: str) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STEP_TIMEOUT_S):
                while text.encode() not in process.log_path.read_bytes()[offset:]:  # noqa: ASYNC110  (a file)
                    await asyncio.sleep(0.05)
                return True
        return False

    def _killed(self, what: str, process: Process) -> None:
        process.kill()
        self.kills[what] = self.kills.get(what, 0) + 1

    async def _back(self, process: Process) -> None:
        # Started on this thread: a child is told when the thread that started it ends, and dies too.
        process.start()
        await asyncio.to_thread(self.cluster.wait_ready, process)
