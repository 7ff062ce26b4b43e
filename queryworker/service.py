"""A query worker process: what it opens, in order, and what it runs."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import secrets
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final
from urllib.parse import urlsplit

from queryworker.api import Api
from queryworker.config import QueryWorkerConfig
from queryworker.loader import Loader
from queryworker.segments import SegmentPool
from queryworker.shard import ServedShard
from queryworker.shards import JANITOR_S, Shards
from queryworker.slot import own_slot
from queryworker.threads import Threads
from shared import telemetry
from shared.clock import SystemClock
from shared.errors import Unavailable
from shared.log.log import Log
from shared.manifest import ManifestStore
from shared.membership import Member, Membership
from shared.memory import keep_for_reuse
from shared.objects.open import open_store
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys
from shared.rpc.frames import join_address, split_address
from shared.rpc.server import RpcServer
from shared.segment.cache import SegmentCache

MISSED_HEARTBEATS_MAX: Final = 3

SWITCH_S: Final = 0.001
"""A thread that folds in a piece of the log gives the interpreter to a read, or to the loop, after so long."""

INDEXER_NICE: Final = 5
"""Indexing the tail must not take the processor from reads; it saves them more than a compaction next door does."""

log = telemetry.get_logger(__name__)


class QueryWorker:
    """The running worker."""

    def __init__(
        self,
        config: QueryWorkerConfig,
        address: str,
        membership: Membership,
        server: RpcServer,
        shards: Shards,
    ) -> None:
        self.address = address
        self._config = config
        self._membership = membership
        self._server = server
        self._shards = shards
        self._draining = False

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        return (self._heartbeat, self._janitor)

    def ready(self) -> bool:
        return not self._draining

    async def announce(self) -> None:
        member = Member(self._config.process_id, self.address, draining=self._draining)
        await self._membership.announce(member, MISSED_HEARTBEATS_MAX * self._config.heartbeat_s)

    async def drain(self) -> None:
        """Tell everybody, refuse new calls, finish those in flight, leave."""
        self._draining = True
        try:
            await self.announce()
        except Unavailable as error:  # they find out by being refused
            log.warning("could not announce the leaving", error=error.message)
        await self._server.drain(self._config.drain_timeout_s)
        try:
            await self._membership.leave(self._config.process_id)
        except Unavailable as error:  # the entry expires by itself
            log.warning("could not leave", error=error.message)

    async def _heartbeat(self) -> None:
        while True:
            await asyncio.sleep(self._config.heartbeat_s)
            if self._draining:
                continue  # `drain` has said so; a late heartbeat must not bring the worker back after it left
            try:
                await self.announce()
            except Unavailable as error:
                log.warning("heartbeat failed", error=error.message)

    async def _janitor(self) -> None:
        while True:
            await asyncio.sleep(JANITOR_S)
            self._shards.tidy()


@asynccontextmanager
async def open_service(config: QueryWorkerConfig) -> AsyncIterator[QueryWorker]:
    """Redis, object storage, a slot for segment files, the threads, the listener; announced when all are there."""
    _allow_many_files()
    keep_for_reuse()
    sys.setswitchinterval(SWITCH_S)
    async with AsyncExitStack() as stack:
        keys, clock = Keys(config.redis_prefix), SystemClock()
        redis = await stack.enter_async_context(open_verified_redis(config.redis_url, keys))
        objects = await stack.enter_async_context(open_store(config.bucket_url))
        slot = stack.enter_context(own_slot(config.cache_dir))
        threads = Threads(config.threads, "read")
        stack.push_async_callback(threads.close)
        indexer = Threads(1, "index", nice=INDEXER_NICE)
        stack.push_async_callback(indexer.close)
        cache = SegmentCache(objects, slot / "segments", config.cache_bytes)
        await cache.open()
        pool = SegmentPool(cache)
        stack.push_async_callback(pool.close)
        loader = Loader(ManifestStore(objects), pool)
        reader = Log(redis, keys)
        shards = Shards(
            lambda collection, shard: ServedShard(collection, shard, reader, loader, threads, indexer, clock),
            clock,
            config.memory_bytes,
            config.idle_s,
        )
        stack.push_async_callback(shards.close)
        name = f"queryworker-{secrets.token_hex(4)}"  # clients see it: it tells nothing about the machine
        log.info("explains itself", worker=name)
        api = Api(shards, threads, name)
        stack.push_async_callback(api.close)
        server = RpcServer(api.methods())
        stack.push_async_callback(server.close)
        bound = await server.start(config.host, config.port)
        address = join_address(_advertised_host(config), split_address(bound)[1])
        worker = QueryWorker(config, address, Membership(redis, keys, "queryworker"), server, shards)
        await worker.announce()
        yield worker


def _allow_many_files() -> None:
    """Every open segment holds a few descriptors; the usual soft limit would be reached with some hundred shards."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _advertised_host(config: QueryWorkerConfig) -> str:
    if config.advertise_host:
        return config.advertise_host
    return _address_towards(config.redis_url) if _is_wildcard(config.host) else config.host


def _is_wildcard(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return host == ""


def _address_towards(url: str) -> str:
    """Our address as a peer of the server in `url` sees it. Nothing is sent: a datagram socket only looks
    up the route.
    """
    parts = urlsplit(url)
    found = socket.getaddrinfo(parts.hostname, parts.port or 6379, type=socket.SOCK_DGRAM)
    family, kind, protocol, _, peer = found[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.connect(peer)
        return str(probe.getsockname()[0])
