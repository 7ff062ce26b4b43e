"""One run: a cluster, its clients and what disturbs them, from one seed; and what is checked at its end."""

from __future__ import annotations

import asyncio
import itertools
import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import compactor.service
import logservice.service
import queryworker.service
from compactor.config import CompactorConfig
from frontend.config import FrontendConfig
from logservice.config import LogserviceConfig
from queryworker.config import QueryWorkerConfig
from tests.simulation.bucket import Bucket, BucketClient
from tests.simulation.checks import check_end
from tests.simulation.determinism import STARTED_S, kept_apart
from tests.simulation.disturbances import Disturbances
from tests.simulation.history import History, Violation
from tests.simulation.loop import CURRENT, SimulatedLoop, Stuck
from tests.simulation.members import Member, open_frontend
from tests.simulation.network import Network
from tests.simulation.redis_server import RedisServer
from tests.simulation.trace import Trace
from tests.simulation.workload import Access, Bank, Group

COMMON: Final[dict[str, Any]] = {"redis_url": "redis://127.0.0.1:6379/0", "bucket_url": "memory://"}


RUN_S_MAX: Final = 400.0
"""Longest time of a run, in virtual seconds."""


@dataclass(frozen=True)
class Shape:
    """What a seed makes of the cluster and of its run."""

    shards: tuple[int, ...]
    frontends: int
    workers: int
    compactors: int
    log_services: int
    disturbances: int
    lasts_s: float

    @staticmethod
    def of(seed: int, shards_max: int) -> Shape:
        chance = random.Random(f"shape {seed}")
        return Shape(
            shards=tuple(min(shards_max, chance.choice([1, 1, 2, 3])) for _ in range(chance.choice([1, 1, 2]))),
            frontends=chance.choice([1, 2]),
            workers=chance.choice([1, 2]),
            compactors=chance.choice([1, 2]),
            log_services=chance.choice([1, 1, 2]),
            disturbances=chance.randint(2, 7),
            lasts_s=chance.choice([6.0, 10.0, 18.0]),
        )


@dataclass
class Outcome:
    """What came of a run."""

    seed: int
    digest: str
    violations: list[Violation] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    virtual_s: float = 0.0


class Simulation:
    """The cluster of one run."""

    def __init__(self, seed: int, *, shards_max: int = 3) -> None:
        self.seed = seed
        self.shape = Shape.of(seed, shards_max)
        self.loop = SimulatedLoop(seed)
        self.trace = Trace(self.loop.time)
        self.network = self.loop.network = Network(self.loop, seed)
        self.history = History()
        now_s: Callable[[], float] = lambda: STARTED_S + self.loop.time()  # noqa: E731 (a clock)
        self.bucket = Bucket(self.loop, self.network, now_s, self.trace.add, seed)
        self.redis = RedisServer(self.loop, self.network, now_s, self.history.observe)
        self.chance = random.Random(f"run {seed}")
        self.members: list[Member] = []
        self.frontends: list[Member] = []
        self.banks: list[Bank] = []
        self.groups: list[Group] = []
        self.loop.set_exception_handler(self._defect)

    def run(self) -> Outcome:
        """Runs to the end, or to the first broken promise."""
        asyncio.set_event_loop(None)
        violations = self.history.violations
        with kept_apart(self.loop, self.seed, lambda process: BucketClient(self.bucket, process), self.trace.add) as at:
            try:
                self.loop.run_until_complete(self._main(at))
            except Violation as violation:
                violations.append(violation)
            except ExceptionGroup as several:
                found, others = several.split(Violation)
                violations += _flat(found)
                if others is not None:  # an error that no client expects
                    violations.append(Violation("error", "".join(traceback.format_exception(others, chain=False))))
            except Stuck:
                violations.append(Violation("stuck", "nothing is left to do"))
            outcome = Outcome(self.seed, self.trace.digest, list(violations), list(self.trace.lines), self.loop.time())
            self._end()
        return outcome

    async def _main(self, folder: Path) -> None:
        self.redis.start()
        self._build(folder)
        for member in self.members:
            member.start()
        clients = self.loop.new_process("clients")
        try:
            async with asyncio.timeout(RUN_S_MAX):
                await self.loop.create_task(self._clients(), context=clients.context())
        except TimeoutError:
            deaths = [repr(member.deaths[-1]) for member in self.members if member.deaths]
            raise Violation("stuck", f"the run does not end: {deaths}") from None

    async def _clients(self) -> None:
        access = Access(self.frontends, self.history, random.Random(f"clients {self.seed}"), self.trace.add)
        for number, shards in enumerate(self.shape.shards):
            collection = await access.create(f"collection{number}", shards)
            self.banks.append(Bank(access, collection, 3))
            for name, size in (("batch", 4), ("single", 1)):
                self.groups.append(Group(access, collection, name, size, itertools.count(1)))
        await asyncio.sleep(2.0)
        clients: list[Bank | Group] = [*self.banks, *self.banks, *self.groups]
        async with asyncio.TaskGroup() as group:
            work = [group.create_task(client.run()) for client in clients]
            disturbing = self.loop.create_task(self._disturb(), context=self.loop.host.context())
            await asyncio.sleep(self.shape.lasts_s)
            for task in (*work, disturbing):
                task.cancel()
        self._disturbances().heal()
        await check_end(self, access)

    def _disturbances(self) -> Disturbances:
        return Disturbances(
            self.members, self.redis, self.network, self.bucket, self.history, self.chance, self.trace.add
        )

    async def _disturb(self) -> None:
        disturbances = self._disturbances()
        kinds = disturbances.kinds()
        weights = [weight for weight, _ in kinds.values()]
        async with asyncio.TaskGroup() as group:
            for _ in range(self.shape.disturbances):
                await asyncio.sleep(self.chance.uniform(0.0, 1.4) * self.shape.lasts_s / self.shape.disturbances)
                (name,) = self.chance.choices(list(kinds), weights)
                self.trace.add(f"disturbance: {name}")
                group.create_task(_ended(kinds[name][1]()))

    # ---- the members

    def _build(self, folder: Path) -> None:
        shape = self.shape
        for number in range(shape.log_services):
            name = f"logservice{number}"
            self._add(name, partial(logservice.service.open_service, log_service_config(name)))
        for number in range(shape.compactors):
            name = f"compactor{number}"
            self._add(name, partial(compactor.service.open_service, compactor_config(name, folder)))
        for number in range(shape.workers):
            name = f"worker{number}"
            self._add(name, partial(queryworker.service.open_service, worker_config(name, folder)))
        for number in range(shape.frontends):
            name = f"frontend{number}"
            config = FrontendConfig(**COMMON, process_id=name)
            self.frontends.append(self._add(name, partial(open_frontend, config)))

    def _add(self, name: str, open_service: Callable[[], Any]) -> Member:
        member = Member(self.loop, self.network, name, open_service, self.trace.add)
        self.members.append(member)
        return member

    # ---- defects, and the end

    def _defect(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Stuck | Violation):
            raise error
        self.trace.add(f"{CURRENT.get(self.loop.host)} defect {context.get('message')} {error!r}")
        self.history.violations.append(Violation("defect", f"{context.get('message')} {error!r}"))

    def _end(self) -> None:
        """Lets go of everything, so that nothing runs when it is collected."""
        self.loop.set_exception_handler(lambda _loop, _context: None)
        for member in self.members:
            if member.process is not None:
                member.crash()
        if self.redis.running:
            self.redis.crash()
        for process in self.loop.processes:
            process.paused_until_s = 0.0
        until_s = self.loop.time() + 60.0
        while (tasks := asyncio.all_tasks(self.loop)) and self.loop.time() < until_s:
            for task in tasks:  # again too: what waits for something at its end would go on with other work after it
                task.cancel()
            try:
                self.loop.run_until_complete(asyncio.sleep(1.0))
            except (Stuck, Violation, asyncio.CancelledError):
                continue
        self.loop.close()


def log_service_config(name: str) -> LogserviceConfig:
    return LogserviceConfig(
        **COMMON, process_id=name, lease_s=3.0, tick_s=0.8, compact_ops=12, compact_quiet_s=1.0, compact_age_s=4.0,
        sweep_s=8.0, snapshot_s=2.0, garbage_s=20.0, grace_s=30.0, retention_s=10.0,
    )  # fmt: skip


def compactor_config(name: str, folder: Path) -> CompactorConfig:
    return CompactorConfig(**COMMON, process_id=name, scratch_dir=folder / name, threads=1, lease_s=3.0, poll_s=0.8)


def worker_config(name: str, folder: Path) -> QueryWorkerConfig:
    return QueryWorkerConfig(**COMMON, process_id=name, cache_dir=folder / name, threads=1, heartbeat_s=4.0)


async def _ended(work: Any) -> None:
    await work


def _flat(group: ExceptionGroup[Violation] | None) -> list[Violation]:
    found: list[Violation] = []
    for each in group.exceptions if group is not None else ():
        found += _flat(each) if isinstance(each, ExceptionGroup) else [each]
    return found
