"""A query worker process: what it opens, in order, and what it runs."""

from __future__ import annotations

import asyncio
import secrets
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

from queryworker.cache_dir import locked_cache_dir
from queryworker.calls.api import QueryWorkerApi
from queryworker.config import QueryWorkerConfig
from queryworker.shards.manifest_loader import BucketManifestLoader
from queryworker.shards.past_views import PastViews
from queryworker.shards.registry import EVICTION_INTERVAL_S, ShardRegistry
from queryworker.shards.segment_pool import SegmentPool
from queryworker.shards.shard import ServedShard
from queryworker.thread_pool import ThreadPool
from queryworker.work_memory import ProcessMemory
from shared.catalog.damage import DamageReporter, Damages
from shared.catalog.erased_segments import ErasedSegments
from shared.catalog.witness_loop import WitnessLoop, remembers_nothing
from shared.cluster.membership import Membership
from shared.cluster.registration import Registration, advertised_address
from shared.history.past_log import PastLog
from shared.log.log import Log
from shared.log.witness import Witness
from shared.manifest.store import ManifestStore
from shared.objects.open import open_store
from shared.process import telemetry
from shared.process.clock import SystemClock
from shared.process.cluster_secret import check_exposure, open_cluster_secret
from shared.process.memory import keep_freed_memory
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys
from shared.rpc.server import RpcServer
from shared.segment.cache import SegmentCache
from shared.tenancy.erasure_marks import ErasureMarks

SWITCH_INTERVAL_S: Final = 0.001
"""After so long a thread that applies entries of the log gives the interpreter lock to a read, or to the loop."""

GRAPH_NICE: Final = 5
"""Priority (`nice`) of the thread that builds graphs over tails: it must not take the processor from reads. It saves
them more than a compaction on the same machine does, so it is less nice than one.
"""

log = telemetry.get_logger(__name__)


class QueryWorker:
    """The running worker, as `shared.process.service` runs it."""

    def __init__(
        self,
        config: QueryWorkerConfig,
        registration: Registration,
        shards: ShardRegistry,
        damage: DamageReporter,
        witness_loop: WitnessLoop,
        erased: ErasedSegments,
    ) -> None:
        self._erased = erased
        self._witness_loop = witness_loop
        self._config = config
        self._damage = damage
        self._registration = registration
        self._shards = shards

    @property
    def address(self) -> str:
        return self._registration.address

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        return (
            self._registration.heartbeat,
            self._evict_shards,
            self._damage.run,
            self._witness_loop.run,
            self._erased.run,
        )

    def ready(self) -> bool:
        return not self._registration.draining

    async def drain(self) -> None:
        await self._registration.drain(self._config.drain_timeout_s)
        await self._witness_loop.leave()

    async def _evict_shards(self) -> None:
        while True:
            await asyncio.sleep(EVICTION_INTERVAL_S)
            self._shards.evict()


@asynccontextmanager
async def open_service(config: QueryWorkerConfig) -> AsyncIterator[QueryWorker]:
    """Opens Redis, object storage, a directory for segment files, the threads and the listener, in this order; then the
    worker is announced. Closes all in reverse.
    """
    keep_freed_memory()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    check_exposure(config, config.host)
    secret = open_cluster_secret(config)
    async with AsyncExitStack() as stack:
        keys, clock = Keys(config.redis_prefix), SystemClock()
        witness_name = f"queryworker {config.process_id}"
        await remembers_nothing(config.redis_url, keys, witness_name)
        redis = await stack.enter_async_context(open_verified_redis(config.redis_url, keys))
        objects = await stack.enter_async_context(open_store(config.bucket_url))
        cache_dir = stack.enter_context(locked_cache_dir(config.cache_dir))
        threads = ThreadPool(config.threads, "read", spare=True)
        stack.push_async_callback(threads.close)
        graph_threads = ThreadPool(1, "graph", nice=GRAPH_NICE)
        stack.push_async_callback(graph_threads.close)
        cache = SegmentCache(objects, cache_dir / "segments", config.cache_bytes)
        await cache.open()
        pool = SegmentPool(cache)
        stack.push_async_callback(pool.close)
        damage = DamageReporter(Damages(redis, keys), config.process_id, clock)
        manifests = BucketManifestLoader(ManifestStore(objects), pool, damage)
        witness = Witness(clock, config.witness_bytes, config.witness_s)
        witness_loop = WitnessLoop(config.redis_url, keys, witness, witness_name, clock)
        reader = Log(redis, keys, witness=witness)
        shards = ShardRegistry(
            lambda collection, shard: ServedShard(collection, shard, reader, manifests, threads, graph_threads, clock),
            clock,
            config.memory_bytes,
            config.idle_s,
            damage,
            PastViews(PastLog(reader, objects), manifests, threads, config.past_bytes),
            pool.recheck,
        )
        stack.push_async_callback(shards.close)
        name = f"queryworker-{secrets.token_hex(4)}"  # clients see it: it tells nothing about the machine
        log.info("named_in_explanations", worker=name)
        api = QueryWorkerApi(shards, threads, name, ProcessMemory(config.work_bytes))
        stack.push_async_callback(api.close)
        server = RpcServer(api.methods(), secret=secret)
        stack.push_async_callback(server.close)
        bound = await server.start(config.host, config.port)
        address = advertised_address(config.host, bound, config.advertise_host, config.redis_url)
        membership = Membership(redis, keys, "queryworker")
        registration = Registration(config.process_id, address, membership, server, config.heartbeat_s)
        await registration.announce()
        erased = ErasedSegments(ErasureMarks(redis, keys), cache, config.process_id, clock, shards.release)
        yield QueryWorker(config, registration, shards, damage, witness_loop, erased)
