"""A read view says how many records there are without looking at its parts; they agree."""

from __future__ import annotations

import random
from pathlib import Path

from queryworker.query.get import count_records
from shared.records.model import Op
from shared.redis.keys import Keys
from shared.rpc.messages import CountRequest
from tests.queryworker.world import World, adds, open_world
from tests.redis_server import RedisServer
from tests.shared.memtable.model import Operation


async def _change(world: World, random_: random.Random) -> None:
    ids = random_.sample(range(40), 6)
    changed = [Operation(Op.UPSERT, f"r{number}", (1.0, 2.0)) for number in ids[:3]]
    await world.write([*changed, *(Operation(Op.DELETE, f"r{number}") for number in ids[3:])])


async def test_a_count_is_what_lives_in_segments_and_tail_as_of_every_position(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    random_ = random.Random(1)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 30))
        for _ in range(3):
            await world.compact()
            await world.load_newest_manifests()
            covers = world.head
            for _ in range(8):
                await _change(world, random_)
                assert await world.count() == len(world.state)
            for position, state in world.states.items():
                if position >= covers:
                    view = await world.served.read_view(position, fresh=True)
                    assert count_records(view, CountRequest(world.shard())).count == len(state)
                    assert sum(part.live_rows for part in view.parts) == len(state)


async def test_a_count_makes_no_parts_and_between_two_writes_there_is_one_read_view(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(adds(0, 3))
        assert await world.count() == 3
        view = await world.served.read_view(None, fresh=True)
        assert "parts" not in vars(view)
        assert await world.served.read_view(None, fresh=True) is view
        await world.write(adds(3, 1))
        assert (await world.served.read_view(None, fresh=True)).live_records == 4
        assert view.live_records == 3
