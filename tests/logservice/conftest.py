import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from shared.log.log import Log
from shared.objects.directory import open_directory
from shared.objects.port import ObjectStore
from shared.redis.keys import Keys
from tests.redis_server import catalog, database, keys, own_server, redis, redis_server, valkey_server

__all__ = ["catalog", "database", "keys", "own_server", "redis", "redis_server", "valkey_server"]


class SteppedClock:
    """Time that moves when the test says so; sleeping only lets the others run."""

    def __init__(self) -> None:
        self.time_s = 1000.0

    def now(self) -> float:
        return self.time_s

    def monotonic(self) -> float:
        return self.time_s

    async def sleep(self, seconds: float) -> None:
        self.time_s += seconds
        await asyncio.sleep(0)


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    async with open_directory(tmp_path / "bucket") as store:
        yield store


@pytest.fixture
def log(redis: Redis, keys: Keys) -> Log:
    return Log(redis, keys)
