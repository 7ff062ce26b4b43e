from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from shared.objects.directory import open_directory
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.redis_server import BINARIES, RedisServer, keys
from tests.restoring.bank import Bank

__all__ = ["keys"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    binary = BINARIES["valkey"]
    assert binary is not None
    started = RedisServer(binary, tmp_path / "server")
    started.start()
    yield started
    started.kill()


@pytest.fixture
async def bank(server: RedisServer, keys: Keys, tmp_path: Path) -> AsyncIterator[Bank]:
    async with open_directory(tmp_path / "bucket") as objects, open_redis(server.url) as redis:
        yield Bank(server, redis, keys, tmp_path, objects)
