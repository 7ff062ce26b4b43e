"""The HTTP application: which route is served by what, and what surrounds every request. Nothing is opened here."""

from __future__ import annotations

from typing import Final

from frontend.access.access_table import TABLE
from frontend.context import Context
from frontend.embed.texts import TextEmbedding
from frontend.http.access_log import AccessLog
from frontend.http.cors import Cors
from frontend.http.edge import Edge
from frontend.http.errors import removed_api_response
from frontend.http.request import Bodies, Request
from frontend.http.responses import HttpResponse
from frontend.http.router import REST, Route, Router
from frontend.read.point_in_time import PointInTimeReader
from frontend.read.reader import Reader
from frontend.routes import docs
from frontend.routes.audit import AuditRoutes
from frontend.routes.collections import CollectionRoutes, ShardLimits
from frontend.routes.databases import DatabaseRoutes
from frontend.routes.erasures import ErasureRoutes
from frontend.routes.forks import ForkRoutes
from frontend.routes.functions import FunctionRoutes
from frontend.routes.keys import KeyRoutes
from frontend.routes.plans import PlanRoutes
from frontend.routes.records import RecordRoutes
from frontend.routes.system import SystemRoutes
from frontend.routes.tenant_control import TenantControlRoutes
from frontend.routes.tenants import TenantRoutes
from frontend.routes.transactions import TransactionRoutes
from frontend.routes.usage import UsageRoutes
from frontend.write.transactions import Committer
from frontend.write.writes import Writer

V1_METHODS: Final = ("GET", "PUT", "PATCH", "DELETE", "OPTIONS")


async def v1_is_removed(_request: Request) -> HttpResponse:
    """The answer of every route of the API before this one: 410."""
    return removed_api_response("The v1 API is deprecated. Please use /v2 apis")


def all_routes(context: Context) -> list[Route]:
    """Every route of the API, each group built with what its handlers use."""
    config, catalog, rows = context.config, context.catalog, context.rows
    texts = TextEmbedding(context.embedders, context.admission)
    reader = Reader(context.workers, rows, context.log)
    writer = Writer(context.log, context.groups, rows, texts)
    committer = Committer(context.log, context.dirty, context.workers, context.durable)
    stored = context.stored
    shard_limits = ShardLimits(config.shards_default, config.shards_max)
    groups = (
        RecordRoutes(rows, reader, context.past, writer, texts, config.durability, stored),
        CollectionRoutes(catalog, rows, context.dirty, shard_limits),
        TransactionRoutes(rows, PointInTimeReader(context.log, reader), committer, texts, config.durability, stored),
        ForkRoutes(rows, catalog.databases, context.forker, context.past, context.dirty, stored),
        FunctionRoutes(rows, catalog.databases, catalog.collections, context.functions),
        DatabaseRoutes(catalog.tenants, catalog.databases),
        TenantRoutes(catalog.tenants),
        KeyRoutes(context.key_store, catalog.tenants, context.clock),
        AuditRoutes(context.objects, context.clock),
        TenantControlRoutes(catalog, rows, context.key_store, context.plan_store),
        PlanRoutes(context.plan_store, catalog.tenants),
        UsageRoutes(context.usage_reader, context.clock),
        ErasureRoutes(catalog, rows, writer, context.erasures, context.clock),
        SystemRoutes(context.clock, catalog, rows, context.workers, allow_reset=config.allow_reset),
    )
    return [
        *(route for group in groups for route in group.routes()),
        *docs.routes(),
        *(Route(method, "/api/v1" + REST, v1_is_removed) for method in V1_METHODS),
    ]


def build_app(context: Context) -> Edge:
    """The application over opened services, ready to be served by `frontend.http.server`."""
    config = context.config
    return Edge(
        Router(all_routes(context), TABLE),
        Cors(frozenset(config.cors_allow_origins)),
        AccessLog(config.access_log),
        Bodies(config.body_bytes_max, config.body_timeout_s, config.body_rate_min),
        config,
        config.send_timeout_s,
        context.authenticator,
        config.browser_guard,
        context.audit,
        context.admission,
        context.metering,
    )
