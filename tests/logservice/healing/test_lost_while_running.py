"""A Redis that loses all while it runs: its run is the same, and so are the connections of the others."""

from __future__ import annotations

import pytest

from shared.catalog.image import Images
from shared.errors import Unavailable
from shared.log.log import Log
from shared.redis.fence import open_verified_redis
from tests.logservice.healing.witnessed import Healed
from tests.shared.log.appending import everything


async def test_a_redis_that_lost_all_while_it_ran_gets_back_what_was_witnessed(cluster: Healed) -> None:
    collection = await cluster.make("c", 2)
    await cluster.snapshot()
    async with cluster.witness("frontend") as witness:
        for number in range(20):
            await cluster.append(cluster.log_of(witness), collection, [str(number)])
        async with open_verified_redis(cluster.server.url, cluster.keys) as redis:
            await redis.ping()
            await cluster.redis.flushall()
            await cluster.reconcile()
    assert await everything(cluster.log, collection) == cluster.written


async def test_a_connection_from_before_redis_lost_all_reaches_nothing_that_is_being_restored(
    cluster: Healed, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = await cluster.make("c")
    await cluster.snapshot()
    async with open_verified_redis(cluster.server.url, cluster.keys) as redis:
        old = Log(redis, cluster.keys)
        await cluster.append(old, collection, ["before"])

        async def rows_restored(*_: object) -> None:
            with pytest.raises(Unavailable):
                await old.states([(collection.id, 0)])
            raise Unavailable("the log service dies here")

        await cluster.redis.flushall()
        with monkeypatch.context() as patched:
            patched.setattr(Images, "restore_rows", rows_restored)
            with pytest.raises(Unavailable, match="dies here"):
                await cluster.reconcile()
        await cluster.reconcile()
        await cluster.append(old, collection, ["after"])
    assert set((await everything(cluster.log, collection)).values()) == {"after"}
