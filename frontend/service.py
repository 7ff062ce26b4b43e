"""A frontend process: what it opens, in order, what it runs, and how it stops."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final

import aiohttp
from redis.asyncio import Redis

from frontend.access.authenticator import Authenticator
from frontend.access.key_set_file import read_key_set
from frontend.access.settings import OFF_ON_EVERY_ADDRESS, build_authenticator, not_alone
from frontend.admission.admission import Admission
from frontend.admission.catalog_quotas import PlannedQuotas
from frontend.admission.collection_amounts import ManifestsAndLog
from frontend.admission.known_quotas import KnownQuotas
from frontend.admission.live_frontends import WITNESS_ROLE, LiveFrontends
from frontend.admission.stored_quotas import StoredQuotas
from frontend.app import build_app
from frontend.audit.log import AuditLog
from frontend.audit.settings import OFF as AUDIT_OFF
from frontend.collections.forking import Forker
from frontend.collections.row_cache import RowCache
from frontend.config import FrontendConfig
from frontend.context import Context
from frontend.embed.embedders import Embedder, Embedders
from frontend.embed.endpoint import EndpointEmbedder
from frontend.embed.local import LocalEmbedder
from frontend.http.metering import RequestMetering
from frontend.http.server import HttpServer, open_http_server
from frontend.read.past import Past
from frontend.read.past_times import PastTimes
from frontend.read.workers import Workers
from frontend.write.bucket_log import BucketLog
from frontend.write.dirty import DirtyShards
from frontend.write.durable import Durable
from frontend.write.group_commit import GroupCommit
from shared.catalog import Catalog
from shared.catalog.forking import Forking
from shared.catalog.functions import Functions
from shared.catalog.journal import Journal, open_journal
from shared.catalog.witness_loop import WitnessLoop, remembers_nothing
from shared.cluster.membership import Membership
from shared.history.past_log import PastLog
from shared.log.forks import Forks
from shared.log.jobs import Jobs
from shared.log.log import Log
from shared.log.statements import Statements
from shared.log.times import EntryTimes
from shared.log.witness import Witness
from shared.manifest.store import ManifestStore
from shared.objects.open import open_store
from shared.objects.port import ObjectStore
from shared.process.clock import Clock, SystemClock
from shared.process.cluster_secret import open_cluster_secret
from shared.process.config import ConfigError
from shared.process.loopback import is_loopback
from shared.process.telemetry import get_logger
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys
from shared.rpc.client import RpcClient
from shared.tenancy.control_records import ControlRecords
from shared.tenancy.erasure_store import ErasureStore
from shared.tenancy.key_store import KeyStore
from shared.tenancy.plan_store import PlanStore
from shared.tenancy.stored import StoredTable
from shared.tenancy.usage import UsageTotals
from shared.tenancy.usage_flush import UsageFlusher
from shared.tenancy.usage_parts import UsageParts
from shared.tenancy.usage_report import UsageReader
from shared.tenancy.usage_table import UsageTable

log = get_logger(__name__)

LAST_HINTS_S: Final = 1.0
"""Share of the time for draining that is kept for telling the log service about the last writes, in seconds."""


class Frontend:
    """A running frontend, as `shared.process.service` runs it."""

    def __init__(self, server: HttpServer, context: Context, witness_loop: WitnessLoop) -> None:
        self._witness_loop = witness_loop
        self._server = server
        self._context = context
        self._draining = False

    @property
    def address(self) -> str:
        """host:port of the HTTP API."""
        return self._server.address

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        """The background work that runs as long as the process does."""
        authenticator = self._context.authenticator
        return (
            *self._context.workers.loops,
            self._server.close_silent_connections,
            self._witness_loop.run,
            self._context.admission.watch,
            *(() if authenticator is None else (authenticator.watch,)),
            *(() if self._context.audit is None else (self._context.audit.run,)),
            *(() if self._context.usage is None else (self._context.usage.run,)),
            *(() if self._server.tls is None else (self._server.tls.watch,)),
        )

    def ready(self) -> bool:
        """Whether load balancers should send requests here."""
        return not self._draining and self._context.workers.ready

    async def drain(self) -> None:
        """Finishes the requests in hand and delivers their answers, then tells the log service about the last writes.
        The log service is told even when some client takes its answer too slowly. All of it takes `drain_timeout_s` at
        most, then TimeoutError is raised.
        """
        self._draining = True
        timeout_s = self._context.config.drain_timeout_s
        last_hints_s = min(LAST_HINTS_S, timeout_s / 2)
        try:
            async with asyncio.timeout(timeout_s - last_hints_s):
                await self._context.clock.sleep(self._context.config.drain_notice_s)
                await self._server.drain()
        finally:
            async with asyncio.timeout(last_hints_s):
                await self._context.dirty.flush()
                await self._witness_loop.leave()
                if self._context.usage is not None:
                    await self._context.usage.flush()


def build_context(
    config: FrontendConfig,
    redis: Redis,
    objects: ObjectStore,
    rpc: RpcClient,
    http: aiohttp.ClientSession,
    journal: Journal,
    witness: Witness,
) -> Context:
    """The frontend's services over its open connections. Makes no call."""
    keys = Keys(config.redis_prefix)
    clock = SystemClock()
    records = ControlRecords(redis, keys, objects, clock, config.process_id)
    plan_store = PlanStore(records)
    admission = Admission(KnownQuotas(plan_store, config), clock, LiveFrontends(Statements(redis, keys)).count)
    quotas = PlannedQuotas(config.tenants_max, config.databases_max, config.collections_max, admission)
    catalog = Catalog(redis, keys, journal, quotas)
    log = Log(
        redis, keys, backlog_ops_max=config.backlog_ops_max, backlog_bytes_max=config.backlog_bytes_max,
        metadata_pairs_max=config.metadata_pairs_max, witness=witness,
    )  # fmt: skip
    dirty = DirtyShards(Jobs(redis, keys))
    rows = RowCache(
        catalog.databases, catalog.collections, clock, rows_max=config.rows_max, age_max_s=config.rows_age_max_s
    )
    past_log = PastLog(log, objects)
    key_store = KeyStore(records, redis, keys, clock)
    durable = Durable(log, BucketLog(log, objects), clock)
    totals, usage_table = UsageTotals(), UsageTable(redis, keys)
    return Context(
        config=config,
        clock=clock,
        objects=objects,
        catalog=catalog,
        log=log,
        dirty=dirty,
        durable=durable,
        groups=GroupCommit(log, dirty, durable, rows.learn),
        workers=Workers(
            Membership(redis, keys, "queryworker"), rpc, clock, replicas=config.replicas,
            hedge_percent_max=config.hedge_percent_max,
        ),
        past=Past(log, past_log, PastTimes(EntryTimes(redis, keys), objects), rows, clock),
        rows=rows,
        embedders=build_embedders(config, Membership(redis, keys, "embedder"), rpc, http, clock),
        forker=Forker(
            catalog.collections, Forking(redis, keys, catalog.collections), Forks(redis, keys), log, past_log,
            objects, clock, config.forks_max, config.process_id,
        ),
        functions=Functions(redis, keys, catalog.collections),
        key_store=key_store,
        plan_store=plan_store,
        erasures=ErasureStore(records, objects),
        admission=admission,
        stored=StoredQuotas(StoredTable(redis, keys), ManifestsAndLog(log, ManifestStore(objects)), clock),
        authenticator=_authenticator(config, key_store, http, clock),
        audit=_audit(config, objects, clock),
        metering=RequestMetering(totals, clock),
        usage=UsageFlusher(usage_table, totals, clock, config.process_id),
        usage_reader=UsageReader(usage_table, UsageParts(objects), clock),
    )  # fmt: skip


def _authenticator(
    config: FrontendConfig, key_store: KeyStore, http: aiohttp.ClientSession, clock: Clock
) -> Authenticator | None:
    """None when requests need no credential."""
    if not config.access.on:
        return None
    return build_authenticator(config.access, key_store, clock, partial(read_key_set, http))


def _audit(config: FrontendConfig, objects: ObjectStore, clock: Clock) -> AuditLog | None:
    """None when nothing is written down."""
    if config.audit_mode == AUDIT_OFF:
        return None
    return AuditLog(
        objects, clock, config.process_id, config.audit_mode, authenticates=config.access.on,
        seal_s=config.audit_seal_s,
    )  # fmt: skip


async def _open_access(config: FrontendConfig, authenticator: Authenticator | None) -> None:
    """Says who may do what, and knows the keys before the first request comes. Raises ConfigError for a listener that
    must not be open to everybody and for a file that cannot be read, Unavailable.
    """
    log.info("authentication", mode=config.auth)
    if authenticator is None:
        open_to_others = [address for address in config.listener.addresses() if not is_loopback(address)]
        if open_to_others and config.auth != OFF_ON_EVERY_ADDRESS:
            raise ConfigError([not_alone(address) for address in open_to_others])
        return
    try:
        await authenticator.look()
    except (OSError, ValueError) as error:
        raise ConfigError([f"a file of credentials cannot be read: {error}"]) from error


def build_embedders(
    config: FrontendConfig, membership: Membership, rpc: RpcClient, http: aiohttp.ClientSession, clock: Clock
) -> Embedders:
    """The embedding functions that the operator has registered, by name."""
    local = LocalEmbedder(membership, rpc, clock)
    by_name: dict[str, Embedder] = dict.fromkeys(config.local_embedder_names, local)
    keys, chance = dict(config.embedding_keys), random.Random()  # noqa: S311  # spreads pauses, nothing secret
    for name, endpoint in config.embedding_endpoints:
        by_name[name] = EndpointEmbedder(name, endpoint, keys.get(name), http, clock, chance)
    return Embedders(by_name, config.embedder_default or None, config.embedding_timeout_s)


def open_http() -> aiohttp.ClientSession:
    """An HTTP client for the embedding endpoints. It keeps no cookies, which all endpoints would share."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar())


@asynccontextmanager
async def open_service(config: FrontendConfig) -> AsyncIterator[Frontend]:
    """A frontend that listens, for as long as the context lasts. Raises Unavailable when Redis is away."""
    keys, witness_name = Keys(config.redis_prefix), f"{WITNESS_ROLE} {config.process_id}"
    await remembers_nothing(config.redis_url, keys, witness_name)
    async with (
        open_store(config.bucket_url) as objects,
        open_verified_redis(config.redis_url, keys) as redis,
        open_journal(redis, keys, objects) as journal,
        open_http() as http,
    ):
        rpc = RpcClient(answers_bytes_max=config.answers_bytes_max, secret=open_cluster_secret(config))
        try:
            clock = SystemClock()
            witness = Witness(clock, config.witness_bytes, config.witness_s)
            witness_loop = WitnessLoop(config.redis_url, keys, witness, witness_name, clock)
            context = build_context(config, redis, objects, rpc, http, journal, witness)
            await context.catalog.bootstrap()
            await _open_access(config, context.authenticator)
            await context.admission.look()
            try:
                async with open_http_server(build_app(context), config.listener) as server:
                    yield Frontend(server, context, witness_loop)
            finally:
                await context.forker.close()
                if context.audit is not None:
                    await context.audit.close()
        finally:
            await rpc.close()
