"""A Redis server that is full: only the log service and the compactors can empty it, so they must get on."""

from __future__ import annotations

from redis.asyncio import Redis

from logservice.catalog.snapshots import Snapshots
from logservice.restoring.reconcile import Reconciler
from shared.catalog import Catalog
from shared.catalog.image import Images
from shared.log.log import Log
from shared.manifest.commits import CommitNumbers
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.logservice.compacting import compact, publish
from tests.redis_server import RedisServer
from tests.shared.log.appending import append, make_cluster, make_collection


async def _fill(redis: Redis) -> None:
    await redis.config_set("maxmemory", 1)


async def test_a_log_service_takes_the_lead_over_a_full_server_and_the_log_is_trimmed(
    own_server: RedisServer, keys: Keys, objects: ObjectStore
) -> None:
    async with open_redis(own_server.url) as redis:
        catalog, database = await make_cluster(redis, keys)
        log, images = Log(redis, keys), Images(redis, keys, Catalog(redis, keys))
        made = await make_collection(catalog, database)
        await append(log, made, ["a", "b"])
        # Behind by two manifests, so that there is something to report as well.
        first = await publish(objects, made.id, 0, 3, None)
        await publish(objects, made.id, 0, 3, first)
        await CommitNumbers(objects).leave(2)
        await catalog.mark.mark_verified("an earlier run", 0)
        await _fill(redis)
        await Reconciler(catalog, images, log, objects, Snapshots(objects, 10), SystemClock()).run()
        assert (await catalog.mark.server_run())[1]
        assert await images.read_report() is not None
        state = (await log.read(made.id, 0)).state
        assert state.pointer is not None
        assert await log.trim(made.id, 0, state.pointer, state.epoch) == 1


async def test_a_full_server_is_compacted_and_takes_writes_again(
    own_server: RedisServer, keys: Keys, objects: ObjectStore
) -> None:
    async with open_redis(own_server.url) as redis:
        catalog, database = await make_cluster(redis, keys)
        log = Log(redis, keys)
        made = await make_collection(catalog, database)
        await append(log, made, ["a", "b"])
        await _fill(redis)
        assert await log.trim(made.id, 0, await compact(log, objects, made.id), 0) == 1
        await redis.config_set("maxmemory", 0)
        await append(log, made, ["c"])
