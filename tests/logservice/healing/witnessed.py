"""A cluster with witnesses, whose Redis loses something."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from logservice.catalog.snapshots import Snapshots
from logservice.healing.put_back import Healing
from logservice.restoring.reconcile import Reconciler
from shared.catalog import Catalog, Collection
from shared.catalog.cluster import Cluster
from shared.catalog.image import Images
from shared.catalog.witness_loop import WitnessLoop
from shared.log.append import Appended, AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.heal import Heal
from shared.log.log import Log
from shared.log.statements import Statements
from shared.log.witness import Witness
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.records.model import Op
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.append_only_file import cut
from tests.redis_server import RedisServer
from tests.shared.log.appending import make_collection

WAIT_S = 2.0


@dataclass
class Healed:
    """A cluster with witnesses, whose Redis loses the end of its log."""

    server: RedisServer
    redis: Redis
    keys: Keys
    objects: ObjectStore
    catalog: Catalog
    log: Log
    written: dict[int, str] = field(default_factory=dict)
    """Position -> id of all that was acknowledged."""

    def log_of(self, witness: Witness) -> Log:
        return Log(self.redis, self.keys, witness=witness)

    @asynccontextmanager
    async def witness(self, name: str, bytes_max: int = 1 << 20) -> AsyncIterator[Witness]:
        """A witness that is at work."""
        witness = Witness(SystemClock(), bytes_max, 60)
        witness_loop = WitnessLoop(self.server.url, self.keys, witness, name, SystemClock())
        task = asyncio.create_task(witness_loop.run())
        try:
            async with asyncio.timeout(5):
                while name not in await Statements(self.redis, self.keys).expected():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            yield witness
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def append(
        self, log: Log, collection: Collection, ids: Sequence[str], request_id: str | None = None, op: Op = Op.UPSERT
    ) -> Appended:
        vectors = np.zeros((len(ids), 2), dtype=np.float32)
        batch = build_batch(op, ids, vectors, documents=["x" * 300] * len(ids))
        request = AppendRequest(
            collection_id=collection.id, request_id=request_id or uuid.uuid4().hex,
            batches=split_batch(batch, collection.layout), dimension=2, generation=None, new_keys=[("k", ids[0])],
        )  # fmt: skip
        done = await log.append(request)
        self.written.update({done.first + at: id_ for at, id_ in enumerate(ids)})
        return done

    async def lose(self, lost_min: int) -> None:
        """The server dies and comes back without the end of its log."""
        await asyncio.to_thread(self.server.kill)
        cut(self.server.directory, lost_min)
        await asyncio.to_thread(self.server.start)

    async def reconcile(self, wait_s: float = WAIT_S) -> Cluster:
        clock, images = SystemClock(), Images(self.redis, self.keys, self.catalog)
        healing = Healing(Statements(self.redis, self.keys), Heal(self.redis, self.keys), self.objects, clock, wait_s)
        snapshots = Snapshots(self.objects, 10)
        reconciler = Reconciler(self.catalog, images, self.log, self.objects, snapshots, clock, healing)
        return await reconciler.run()

    async def snapshot(self) -> None:
        cluster, snapshots = await self.catalog.mark.read(), Snapshots(self.objects, 10)
        assert cluster is not None
        image = await Images(self.redis, self.keys, self.catalog).take(cluster)
        assert await snapshots.write(image, await snapshots.next_number())

    async def report(self) -> dict[str, Any]:
        report = await Images(self.redis, self.keys, self.catalog).read_report()
        return {} if report is None else report

    async def make(self, name: str, shards: int = 1) -> Collection:
        database = await self.catalog.databases.get("default_tenant", "default_database")
        assert database is not None
        return await make_collection(self.catalog, database, name, shards)


@pytest.fixture
async def cluster(own_server: RedisServer, keys: Keys, objects: ObjectStore) -> AsyncIterator[Healed]:
    async with open_redis(own_server.url) as redis:
        made = Healed(own_server, redis, keys, objects, Catalog(redis, keys), Log(redis, keys))
        await made.reconcile()
        yield made
