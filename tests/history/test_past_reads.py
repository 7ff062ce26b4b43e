"""Reads of the past: of a collection that keeps its history, every state that there was can be read."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from shared.errors import StaleRead
from shared.history.archive import SealedLogs
from shared.objects.keys import SealedRange, manifest_key
from shared.redis.keys import Keys
from tests.history.keeping import (
    compact,
    documents_of,
    is_kept,
    random_operations,
    records_as_of,
    seal_and_trim,
    sealer_of,
)
from tests.queryworker.world import World, open_world
from tests.redis_server import RedisServer


async def forget(world: World) -> None:
    """The worker loses all that it has in memory."""
    for shard in list(world.worker.shards._shards.values()):
        await shard.close()
    world.worker.shards._shards.clear()
    world.worker.shards._past._views.clear()


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_state_that_there_was_can_be_read_again(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, shards: int, seed: int
) -> None:
    chance = random.Random(seed)
    async with open_world(valkey_server.url, keys, tmp_path, shards=shards) as world:
        for _ in range(30):
            await world.write(random_operations(chance))
            if chance.random() < 0.25:
                await world.compact(trim=False)
            if chance.random() < 0.2:
                await seal_and_trim(world)
        for cold in (False, True):
            positions = list(world.states)
            chance.shuffle(positions)
            for position in positions:
                if cold and chance.random() < 0.2:
                    await forget(world)
                assert await records_as_of(world, position) == documents_of(world.states[position]), position


async def test_reads_of_one_position_at_once_share_a_view(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    chance = random.Random(3)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        for _ in range(4):
            position = await world.write(random_operations(chance))
            await world.write(random_operations(chance))
            await compact(world)
            await forget(world)
        wanted = documents_of(world.states[position])
        found = await asyncio.gather(*(records_as_of(world, position) for _ in range(5)))
        assert found == [wanted] * 5
        assert len(world.worker.shards._past._views) == 1


async def test_views_of_the_past_are_let_go_of_when_they_take_too_much(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    chance = random.Random(4)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        world.worker.shards._past._bytes_max = 1
        for _ in range(4):
            await world.write(random_operations(chance))
            await compact(world)
        await forget(world)
        for position, state in world.states.items():
            assert await records_as_of(world, position) == documents_of(state)
        assert len(world.worker.shards._past._views) == 1


async def test_without_history_the_past_is_stale(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    chance = random.Random(5)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        first = await world.write(random_operations(chance))
        between = await world.write(random_operations(chance))
        await compact(world, history_s=0)
        await world.write(random_operations(chance))
        await compact(world, history_s=0)
        await forget(world)
        assert not await is_kept(world, first)
        assert not await is_kept(world, between - 1)
        assert await records_as_of(world, between) == documents_of(world.states[between])  # a manifest of then is left


async def test_history_begins_where_it_was_switched_on(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    chance = random.Random(6)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        early = await world.write(random_operations(chance))
        await world.write(random_operations(chance))
        await compact(world, history_s=0)
        begin = world.head
        for _ in range(6):
            await world.write(random_operations(chance))
            await world.write(random_operations(chance))
            await compact(world)
        await forget(world)
        assert not await is_kept(world, early)
        for position, state in world.states.items():
            if position >= begin:
                assert await records_as_of(world, position) == documents_of(state)


async def test_a_missing_stretch_of_the_sealed_log_is_never_skipped(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    chance = random.Random(7)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        for _ in range(3):
            await world.write(random_operations(chance))
            await world.write(random_operations(chance))
            await compact(world)
        sealed = await SealedLogs(world.objects).ranges(world.collection, 0)
        assert [one.end for one in sealed[:-1]] == [one.first for one in sealed[1:]]
        await world.objects.delete([sealed[1].key, manifest_key(world.collection, 0, 2)])
        await forget(world)
        assert await is_kept(world, sealed[0].end)
        assert not await is_kept(world, sealed[1].end)
        assert await is_kept(world, sealed[2].end)


async def test_sealing_again_after_a_crash_before_the_trim_does_no_harm(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    chance = random.Random(8)
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        sealer = sealer_of(world)
        for _ in range(3):
            await world.write(random_operations(chance))
            await world.compact(trim=False)
            [state] = await world.log.states([(world.collection, 0)])
            assert state is not None
            assert state.pointer is not None
            for _ in range(2):
                await sealer.seal(world.collection, 0, state.pointer)  # and never trimmed
        await seal_and_trim(world)
        await forget(world)
        for position, written in world.states.items():
            assert await records_as_of(world, position) == documents_of(written)


async def test_a_position_ahead_of_the_log_is_stale(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with open_world(valkey_server.url, keys, tmp_path) as world:
        await world.write(random_operations(random.Random(9)))
        with pytest.raises(StaleRead):
            await records_as_of(world, world.head + 1)


def test_the_object_of_a_range_is_found_by_its_key() -> None:
    assert SealedRange("c", 3, 17, 42).key == "c/3/log/00000000000000000017-00000000000000000042.log"
