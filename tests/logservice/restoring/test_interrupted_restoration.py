"""A log service that dies in the middle of a restoration, or that sleeps through another one's: what Redis still had is
neither dropped nor changed by it.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from logservice.restoring.restorer import Restorer
from shared.catalog import pending, scripts
from shared.catalog.collector import Collector
from shared.errors import DimensionMismatch, Unavailable
from shared.log import lifecycle
from shared.manifest.roots import RootStore, make_root
from shared.redis import client
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from shared.redis.scripts import Script
from tests.logservice.compacting import compact
from tests.logservice.restoring.test_rollback import Rolling, rolling, valkey
from tests.shared.log.appending import append, everything, make_collection

__all__ = ["rolling", "valkey"]


async def _dies(*_: object, **__: object) -> None:
    raise Unavailable("the log service was killed")


@pytest.mark.parametrize("shards", [1, 2])
async def test_a_log_that_is_whole_is_kept_also_after_a_log_service_that_died_before_it_raised_the_epochs(
    rolling: Rolling, monkeypatch: pytest.MonkeyPatch, shards: int
) -> None:
    await rolling.reconcile()
    shown = await make_collection(rolling.catalog, await rolling.database(), "shown")
    silent = await make_collection(rolling.catalog, await rolling.database(), "silent", shards)
    if shards > 1:
        await RootStore(rolling.objects).create(make_root(silent.id, 0, 1, silent.layout, [None] * shards, "test", 0.0))
    ids = [str(number) for number in range(20)]
    await append(rolling.log, silent, ids)
    await rolling.snapshot()
    await rolling.remember()
    for number in range(2):
        await append(rolling.log, shown, [str(number)])
        await compact(rolling.log, rolling.objects, shown.id)
    await rolling.go_back()
    with monkeypatch.context() as patched:
        patched.setattr(Restorer, "bring_forward", _dies)
        with pytest.raises(Unavailable):
            await rolling.reconcile()
    await rolling.reconcile()
    assert sorted((await everything(rolling.log, silent)).values()) == sorted(ids)


@pytest.mark.parametrize("row_known", [True, False])
async def test_a_redis_from_before_the_first_write_learns_the_dimension_of_the_manifests(
    rolling: Rolling, monkeypatch: pytest.MonkeyPatch, *, row_known: bool
) -> None:
    """Otherwise vectors of another dimension would be let in beside those that the manifests have. Redis is back in
    the moment after the collection was made, or within its creation.
    """
    await rolling.reconcile()
    database, scripts = await rolling.database(), rolling.catalog.collections._scripts
    commit = scripts.collections

    async def remembered(key: str, verb: str, *args: str | bytes) -> list[Any]:
        if verb == "add":
            await rolling.remember()
        return await commit(key, verb, *args)

    with monkeypatch.context() as patched:
        if not row_known:
            patched.setattr(scripts, "collections", remembered)
        made = await make_collection(rolling.catalog, database)
    if row_known:
        await rolling.remember()
    else:
        await rolling.snapshot()
    for number in range(2):
        await append(rolling.log, made, [str(number)])
        await compact(rolling.log, rolling.objects, made.id)
    await rolling.go_back()
    await rolling.reconcile()
    restored = (await rolling.log.read(made.id, 0)).state
    assert restored.pointer is not None
    with pytest.raises(DimensionMismatch):
        await append(rolling.log, made, ["x"], dimension=3)


async def test_a_log_service_that_sleeps_within_a_restoration_drops_nothing_that_was_appended_since(
    rolling: Rolling, monkeypatch: pytest.MonkeyPatch
) -> None:
    await rolling.reconcile()
    made = await make_collection(rolling.catalog, await rolling.database())
    await rolling.snapshot()
    await asyncio.to_thread(rolling.server.lose_everything)
    asleep, awake = asyncio.Event(), asyncio.Event()
    run, command = Script.run, client.command

    async def sleep() -> None:
        """Before the first change of a state or of its streams."""
        if not asleep.is_set():
            asleep.set()
            await awake.wait()

    async def run_late(script: Script, redis: Any, keys: Any, args: Any, **options: Any) -> Any:
        if script is lifecycle.STATE and args[0] == "restore":
            await sleep()
        return await run(script, redis, keys, args, **options)

    async def command_late(redis: Any, *args: Any) -> Any:
        if args[0] == "UNLINK":
            await sleep()
        return await command(redis, *args)

    monkeypatch.setattr(Script, "run", run_late)
    monkeypatch.setattr(lifecycle, "command", command_late)
    slow = asyncio.create_task(rolling.reconcile())
    await asleep.wait()
    await rolling.reconcile()
    await append(rolling.log, made, ["a"])
    awake.set()
    with pytest.raises(Unavailable):
        await slow
    assert list((await everything(rolling.log, made)).values()) == ["a"]


@pytest.mark.parametrize("lost", ["state", "head", "state and a stream", "row", "name"])
@pytest.mark.parametrize("shards", [1, 2])
async def test_a_redis_that_restarts_is_opened_although_it_lost_something_alone(
    rolling: Rolling, keys: Keys, shards: int, lost: str
) -> None:
    """Nobody recovers anything of a server that is not open."""
    await rolling.reconcile()
    database = await rolling.database()
    made = await make_collection(rolling.catalog, database, "hit", shards)
    other = await make_collection(rolling.catalog, database, "other")
    await append(rolling.log, other, ["o"])
    ids = [str(number) for number in range(20)]
    await append(rolling.log, made, ids)
    await rolling.snapshot()
    head = (await append(rolling.log, made, ids)).head
    async with open_redis(rolling.server.url) as redis:
        match lost:
            case "state":
                await redis.delete(keys.state(made.id))
            case "head":
                await redis.hdel(keys.state(made.id), "head")
            case "state and a stream":
                await redis.delete(keys.state(made.id), keys.log(made.id, shards - 1))
            case "row":
                await redis.hdel(keys.rows(database.key), made.id)
            case "name":
                await redis.hdel(keys.names(database.key), "hit")
    await asyncio.to_thread(rolling.server.kill)
    await asyncio.to_thread(rolling.server.start)
    await rolling.reconcile()
    back = await rolling.catalog.collections.get(database, "hit")
    assert back is not None
    assert back.id == made.id
    found = await everything(rolling.log, back)
    assert sorted(found.values()) == ([] if lost == "state and a stream" else sorted(2 * ids))
    assert await everything(rolling.log, other) == {1: "o"}
    assert (await append(rolling.log, made, ["x"])).first >= head
    assert await rolling.catalog.mark.read() is not None
    assert (await rolling.catalog.mark.server_run()).verified


@pytest.mark.parametrize("within", ["rows", "versions"])
async def test_a_log_service_that_sleeps_while_it_restores_rows_changes_nothing_that_was_done_since(
    rolling: Rolling, keys: Keys, monkeypatch: pytest.MonkeyPatch, within: str
) -> None:
    """It would bring back a deleted collection, or forget that a row is not in the journal yet."""
    await rolling.reconcile()
    database = await rolling.database()
    made = await make_collection(rolling.catalog, database, "deleted since")
    await rolling.snapshot()
    await asyncio.to_thread(rolling.server.lose_everything)
    asleep, awake = asyncio.Event(), asyncio.Event()
    run, run_many = Script.run, Script.run_many

    async def sleep() -> None:
        if not asleep.is_set():
            asleep.set()
            await awake.wait()

    async def run_late(script: Script, redis: Any, keys: Any, args: Any, **options: Any) -> Any:
        if within == "rows" and script is scripts.COLLECTIONS:
            await sleep()
        return await run(script, redis, keys, args, **options)

    async def run_many_late(script: Script, redis: Any, calls: Any) -> Any:
        calls = list(calls)
        if within == "versions" and script is pending.JOURNAL and calls[0][1][0] == "restore":
            await sleep()
        return await run_many(script, redis, calls)

    monkeypatch.setattr(Script, "run", run_late)
    monkeypatch.setattr(Script, "run_many", run_many_late)
    slow = asyncio.create_task(rolling.reconcile())
    await asleep.wait()
    await rolling.reconcile()
    async with open_redis(rolling.server.url) as redis:
        await rolling.catalog.collections.delete(database, made.name)
        await Collector(redis, keys, rolling.catalog).collect_deleted()
        await scripts.CatalogScripts(redis, keys).collections(database.key, "create", "n", "i", b'{"name":"n"}')
        awake.set()
        with pytest.raises(Unavailable):
            await slow
        assert await redis.hkeys(keys.names(database.key)) == [b"n"]
        assert b"i" in await redis.hkeys(keys.database_pending(database.key))
