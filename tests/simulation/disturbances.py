"""What goes wrong in a run. Each disturbance lasts for a while that is drawn, and several may overlap."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from tests.simulation.bucket import Bucket
from tests.simulation.history import History
from tests.simulation.members import Member
from tests.simulation.network import Network
from tests.simulation.redis_server import RedisServer


@dataclass
class Disturbances:
    """Everything that can be disturbed in a cluster. Every method disturbs it once, and returns when that is over."""

    members: Sequence[Member]
    redis: RedisServer
    network: Network
    bucket: Bucket
    history: History
    chance: random.Random
    trace: Callable[[str], None]

    def kinds(self) -> dict[str, tuple[int, Callable[[], Awaitable[None]]]]:
        """The disturbances by name, each with its weight."""
        return {
            "crash": (3, self.crash),
            "pause": (2, self.pause),
            "pause at io": (4, self.pause_at_io),
            "redis restarts": (3, lambda: self._restart_redis("keeps", 0)),
            "redis goes back": (2, self.redis_goes_back),
            "redis is empty": (3, lambda: self._restart_redis("loses everything", 1 << 40)),
            "redis pauses": (1, self.pause_redis),
            "bucket is away": (2, self.bucket_away),
            "bucket is flaky": (2, self.bucket_flaky),
            "network is slow": (1, self.slow_network),
            "network cuts": (2, self.cutting_network),
        }

    async def crash(self) -> None:
        member = self.chance.choice(self.members)
        member.crash()
        await asyncio.sleep(self.chance.uniform(0.1, 5.0))
        if member.process is None:
            member.start()

    async def pause(self) -> None:
        member = self.chance.choice(self.members)
        if member.process is not None:
            pause_s = self.chance.choice([0.5, 3.0, 12.0, 25.0]) * self.chance.uniform(0.5, 1.0)
            self.trace(f"pause {member.process} {pause_s:.2f}")
            member.process.paused_until_s = self.network.loop.time() + pause_s
            await asyncio.sleep(pause_s)

    async def pause_at_io(self) -> None:
        """A process stops right after it has sent something: those that compact are the most interesting ones."""
        compactors = [member for member in self.members if member.name.startswith("compactor")]
        member = self.chance.choice(compactors if self.chance.random() < 0.7 else self.members)
        if member.process is not None:
            pause_s, count = self.chance.uniform(3.0, 25.0), self.chance.randint(1, 40)
            self.trace(f"pause {member.process} at io {count} {pause_s:.2f}")
            member.process.pause_at_io = (count, pause_s)
        await asyncio.sleep(self.chance.uniform(0.5, 4.0))

    async def redis_goes_back(self) -> None:
        await self._restart_redis("goes back", self.chance.choice([1, 3, 10, 40, 200]))

    async def _restart_redis(self, how: str, lose: int) -> None:
        if not self.redis.running:
            return
        forgotten = self.redis.crash(lose=lose)
        if self.redis.durable:  # of one that is empty, reports have to name everything that is missing
            self.history.drop(forgotten)
        self.trace(f"redis {how}: {len(self.redis.durable)} commands, without {len(forgotten)}")
        await asyncio.sleep(self.chance.choice([0.05, 1.0, 6.0]) * self.chance.uniform(0.5, 1.0))
        self.redis.start()
        self.trace(f"redis is back {self.redis.run[:8]}")

    async def pause_redis(self) -> None:
        if self.redis.process is not None:
            pause_s = self.chance.choice([0.3, 2.5, 7.0])
            self.trace(f"pause redis {pause_s}")
            self.redis.process.paused_until_s = self.network.loop.time() + pause_s
            await asyncio.sleep(pause_s)

    async def bucket_away(self) -> None:
        away_s = self.chance.choice([0.5, 5.0, 30.0]) * self.chance.uniform(0.5, 1.0)
        read_only = self.chance.random() < 0.4
        self.trace(f"bucket is {'read-only' if read_only else 'away'} {away_s:.2f}")
        until_s = self.network.loop.time() + away_s
        if read_only:
            self.bucket.read_only_until_s = until_s
        else:
            self.bucket.down_until_s = until_s
        await asyncio.sleep(away_s)

    async def bucket_flaky(self) -> None:
        self.trace("bucket is flaky")
        self.bucket.refuse_chance, self.bucket.lose_chance = 0.1, 0.15
        self.bucket.delay_s_max = 0.5
        await asyncio.sleep(self.chance.uniform(2.0, 10.0))
        self.bucket.refuse_chance = self.bucket.lose_chance = 0.0
        self.bucket.delay_s_max = 0.005
        self.trace("bucket is well")

    async def slow_network(self) -> None:
        self.trace("network is slow")
        self.network.delay_s_max = self.chance.choice([0.05, 0.5, 3.0])
        await asyncio.sleep(self.chance.uniform(2.0, 8.0))
        self.network.delay_s_max = 0.002
        self.trace("network is well")

    async def cutting_network(self) -> None:
        self.trace("network cuts")
        self.network.cut_chance = self.chance.choice([0.02, 0.1])
        await asyncio.sleep(self.chance.uniform(2.0, 8.0))
        self.network.cut_chance = 0.0
        self.trace("network cuts no more")

    def heal(self) -> None:
        """Ends everything that goes wrong."""
        self.trace("heal")
        self.network.delay_s_max, self.network.cut_chance = 0.002, 0.0
        self.bucket.refuse_chance = self.bucket.lose_chance = 0.0
        self.bucket.delay_s_max = 0.005
        self.bucket.down_until_s = self.bucket.read_only_until_s = 0.0
        if not self.redis.running:
            self.redis.start()
        assert self.redis.process is not None
        self.redis.process.paused_until_s = 0.0
        for member in self.members:
            if member.process is None:
                member.start()
            else:
                member.process.paused_until_s = 0.0
                member.process.pause_at_io = None
