"""The table of methods that frontends and query workers share."""

from __future__ import annotations

from pathlib import Path

from shared.redis.keys import Keys
from shared.rpc.query_worker_methods import NAMES
from tests.queryworker.world import open_world
from tests.redis_server import RedisServer


async def test_every_method_of_the_table_is_served_and_no_other(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        assert set(world.worker.methods) == NAMES
