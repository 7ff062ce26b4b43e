"""The HTTP application: its routes, and what surrounds them. Nothing is opened here."""

from __future__ import annotations

from typing import Final

from frontend.context import Context
from frontend.http.access_log import AccessLog
from frontend.http.cors import Cors
from frontend.http.edge import Edge
from frontend.http.errors import gone
from frontend.http.request import Bodies, Request
from frontend.http.responses import HttpResponse
from frontend.http.router import REST, Route, Router
from frontend.routes import collections as routes_collections
from frontend.routes import databases as routes_databases
from frontend.routes import docs as docs_page
from frontend.routes import forks as routes_forks
from frontend.routes import functions as routes_functions
from frontend.routes import records
from frontend.routes import system as routes_system
from frontend.routes import tenants as routes_tenants
from frontend.routes import transactions as routes_transactions

V1_METHODS: Final = ("GET", "PUT", "PATCH", "DELETE", "OPTIONS")


async def v1_is_gone(_request: Request) -> HttpResponse:
    return gone("The v1 API is deprecated. Please use /v2 apis")


def all_routes() -> list[Route]:
    """Every route of the API."""
    return [
        *records.routes(),
        *routes_collections.routes(),
        *routes_transactions.routes(),
        *routes_forks.routes(),
        *routes_functions.routes(),
        *routes_databases.routes(),
        *routes_tenants.routes(),
        *routes_system.routes(),
        *docs_page.routes(),
        *(Route(method, "/api/v1" + REST, v1_is_gone) for method in V1_METHODS),
    ]


def build_app(context: Context) -> Edge:
    config = context.config
    return Edge(
        context,
        Router(all_routes()),
        Cors(frozenset(config.cors_allow_origins)),
        AccessLog(config.access_log),
        Bodies(config.body_bytes_max, config.body_timeout_s),
    )
