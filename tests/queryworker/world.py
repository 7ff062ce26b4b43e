"""Everything around a query worker, for real: a log on Valkey, objects in a directory, a compactor that is called.

Writes go into the log and into a model at once, so that any answer can be compared with what is true.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import orjson
from redis.asyncio import Redis

from compactor.checkpoints import Checkpoints
from compactor.compaction import Compactor, Ending, ResourceLimits
from queryworker.calls.api import QueryWorkerApi
from queryworker.shards.manifest_loader import BucketManifestLoader
from queryworker.shards.past_views import PastViews
from queryworker.shards.registry import ShardRegistry
from queryworker.shards.segment_pool import SegmentPool
from queryworker.shards.shard import ServedShard
from queryworker.thread_pool import ThreadPool
from queryworker.work_memory import ProcessMemory
from shared.catalog import Catalog
from shared.catalog.damage import Damage, DamageReporter, Damages
from shared.cluster.placement import Layout
from shared.history.past_log import PastLog
from shared.log.append import AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.lifecycle import Lifecycle
from shared.log.log import Log
from shared.log.state import ShardRead
from shared.manifest.store import ManifestStore
from shared.objects.directory import open_directory
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.records.indexing import EVERYTHING, Indexing
from shared.records.model import Op
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from shared.rpc import messages
from shared.rpc.server_call import Call
from shared.segment.cache import SegmentCache
from shared.tenancy.erasure_marks import ErasureMarks
from shared.vectors.space import Space
from tests.shared.memtable.model import Operation, Row, step

DIMENSION = 4


def adds(first: int, count: int) -> list[Operation]:
    """Of records r<first> and those that follow, with vectors of two dimensions."""
    return [Operation(Op.ADD, f"r{i}", (float(i), 1.0), f"doc {i}", {"n": i}) for i in range(first, first + count)]


class GatedLog:
    """A log whose reads a test can hold and count."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.reads = 0
        self.open = asyncio.Event()
        self.open.set()
        self.arrived = asyncio.Event()

    async def read(
        self,
        collection_id: str,
        shard: int,
        after: str = "0-0",
        bytes_max: int | None = None,
        known: ShardRead | None = None,
        after_chain: str = "",
    ) -> ShardRead:
        self.reads += 1
        self.arrived.set()
        await self.open.wait()
        return await self._log.read(collection_id, shard, after, bytes_max, known, after_chain)


class DirectCall(Call):
    """A call that came over no connection."""

    def __init__(self, request: msgspec.Struct, request_id: str = "") -> None:
        self.payload = memoryview(msgspec.msgpack.encode(request))
        self.request_id = request_id
        self.deadline_s = math.inf
        self.tenant, self.cost = "", 0.0
        self.done = False
        self.chunks: list[bytes] = []
        self.holds_back = False
        self.wanted: Callable[[], None] | None = None
        self.outcome: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def chunk(self, payload: bytes, wanted: Callable[[], None]) -> None:
        """Its caller takes every chunk at once, unless `wanted` is held back."""
        if not self.done:
            self.chunks.append(payload)
            if self.holds_back:
                self.wanted = wanted
            else:
                wanted()

    def answer(self, payload: bytes) -> None:
        if not self.done and not self.outcome.cancelled():
            self.done = True
            self.outcome.set_result(payload)

    def fail(self, error: BaseException) -> None:
        if not self.done and not self.outcome.cancelled():
            self.done = True
            self.outcome.set_exception(error)

    def abandon(self) -> None:
        self.done = True
        self.outcome.cancel()


class Worker:
    """A query worker without its listener."""

    def __init__(self, log: Log, objects: ObjectStore, cache: SegmentCache, damages: Damages) -> None:
        self.log = GatedLog(log)
        self.cache = cache
        self.clock = SystemClock()
        self.pool = SegmentPool(cache)
        self.damage = DamageReporter(damages, "worker", self.clock)
        self._reporting = asyncio.create_task(self.damage.run())
        self.manifests = BucketManifestLoader(ManifestStore(objects), self.pool, self.damage)
        self.threads, self.graph_threads = ThreadPool(2, "read"), ThreadPool(1, "graph")
        self.memory = ProcessMemory(1 << 30)
        self.shards = ShardRegistry(
            lambda cid, number: ServedShard(
                cid, number, self.log, self.manifests, self.threads, self.graph_threads, self.clock
            ),
            self.clock,
            1 << 40,
            3600.0,
            self.damage,
            PastViews(PastLog(log, objects), self.manifests, self.threads, 1 << 40),
            self.pool.recheck,
        )
        self.api = QueryWorkerApi(self.shards, self.threads, "worker", self.memory)
        self.methods = self.api.methods()

    async def count(self, request: messages.CountRequest) -> messages.CountResponse:
        return msgspec.msgpack.decode(await self._call("count", request), type=messages.CountResponse)

    async def get(self, request: messages.GetRequest) -> messages.GetResponse:
        return msgspec.msgpack.decode(await self._call("get", request), type=messages.GetResponse)

    async def query(self, request: messages.QueryRequest) -> messages.QueryResponse:
        return msgspec.msgpack.decode(await self._call("query", request), type=messages.QueryResponse)

    async def body(self, method: str, request: msgspec.Struct) -> bytes:
        """The answer as it comes."""
        return await self._call(method, request)

    async def _call(self, method: str, request: msgspec.Struct) -> bytes:
        call = DirectCall(request)
        self.methods[method]([call])
        return await call.outcome

    async def close(self) -> None:
        self._reporting.cancel()
        await self.api.close()
        await self.shards.close()
        await self.pool.close()
        await self.threads.close()
        await self.graph_threads.close()


@dataclasses.dataclass
class World:
    """One collection and its model. `states` remembers what was true at each end of an append."""

    redis: Redis
    log: Log
    lifecycle: Lifecycle
    objects: ObjectStore
    directory: Path
    compactor: Compactor
    worker: Worker
    damages: Damages
    collection: str
    shards: int
    state: dict[str, Row]
    head: int
    states: dict[int, dict[str, Row]]

    async def write(self, operations: Sequence[Operation]) -> int:
        """One acknowledged append; the head after it."""
        vectors = [o.vector for o in operations]
        rows = np.array([i for i, vector in enumerate(vectors) if vector is not None], np.int64)
        matrix = np.array([vector for vector in vectors if vector is not None], np.float32)
        batch = build_batch(
            np.array([int(o.op) for o in operations], np.uint8),
            [o.id for o in operations],
            matrix if len(rows) else None,
            rows,
            [o.document for o in operations],
            [None if o.metadata is None else orjson.dumps(o.metadata).decode() for o in operations],
            [o.uri for o in operations],
        )
        request = AppendRequest(
            collection_id=self.collection,
            request_id=uuid.uuid4().hex,
            batches=split_batch(batch, Layout(0, self.shards)),
            dimension=matrix.shape[1] if len(rows) else None,
            generation=None,
        )
        appended = await self.log.append(request)
        for position, operation in enumerate(operations, start=appended.first):
            step(self.state, operation, position)
        self.head = appended.head
        self.states[self.head] = dict(self.state)
        return self.head

    async def compact(self, *, trim: bool = True) -> None:
        """Compacts all that was written. The cut of an earlier time does not hold it up: there is no log service here
        that would set the next one.
        """
        await self.redis.hdel(self.log._keys.state(self.collection), "cut")
        for shard in range(self.shards):
            assert await self.compactor.compact(self.collection, shard) in (Ending.PUBLISHED, Ending.NOTHING)
            [state] = await self.log.states([(self.collection, shard)])
            assert state is not None
            if trim and state.pointer is not None:
                await self.log.trim(self.collection, shard, state.pointer, 0)

    async def load_newest_manifests(self) -> None:
        """Read until the worker has swapped in the newest manifest of every shard."""
        for number in range(self.shards):
            await self.worker.count(messages.CountRequest(self.shard(number)))
            loading = self.worker.shards._shards[self.collection, number].loader.task
            if loading is not None:
                await loading

    async def count(self) -> int:
        return (await self.worker.count(messages.CountRequest(self.shard()))).count

    async def reported(self) -> list[Damage]:
        """The registry of damage, once the worker has sent what it has to say."""
        async with asyncio.timeout(5):
            while self.worker.damage.unsent:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return await self.damages.all()

    @property
    def served(self) -> ServedShard:
        """The worker's first shard."""
        return self.worker.shards._shards[self.collection, 0]

    def shard(self, number: int = 0, **options: object) -> messages.Shard:
        return messages.Shard(self.collection, number, **options)  # type: ignore[arg-type]


@contextlib.asynccontextmanager
async def open_world(
    url: str,
    keys: Keys,
    directory: Path,
    *,
    shards: int = 1,
    space: Space = Space.L2,
    indexing: Indexing = EVERYTHING,
) -> AsyncIterator[World]:
    clock = SystemClock()
    async with open_redis(url) as redis, open_directory(directory / "bucket") as objects:
        await Catalog(redis, keys).mark.open()
        log, lifecycle = Log(redis, keys), Lifecycle(redis, keys)
        collection = str(uuid.uuid4())
        fixed: dict[str, Any] = {"space": str(space), "shards": shards, "ef_construction": 100, "max_neighbors": 16}
        fixed |= indexing.fixed_member()
        await lifecycle.create(collection, "db", fixed, 0)
        built = SegmentCache(objects, directory / "compactor", 1 << 40)
        await built.open()
        cached = SegmentCache(objects, directory / "worker", 1 << 40)
        await cached.open()
        (directory / "building").mkdir()
        damages = Damages(redis, keys)
        compactor = Compactor(
            log, objects, built, directory / "building", Checkpoints(clock), clock, ResourceLimits(2, 1 << 30), "test",
            damages, ErasureMarks(redis, keys),
        )  # fmt: skip
        worker = Worker(log, objects, cached, damages)
        try:
            yield World(
                redis,
                log,
                lifecycle,
                objects,
                directory,
                compactor,
                worker,
                damages,
                collection,
                shards,
                {},
                1,
                {1: {}},
            )
        finally:
            await worker.close()
