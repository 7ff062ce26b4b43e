"""The HTTP application: its routes, and what surrounds them. Nothing is opened here."""

from __future__ import annotations

from typing import Final

from frontend import (
    docs_page,
    records,
    routes_collections,
    routes_databases,
    routes_forks,
    routes_functions,
    routes_system,
    routes_tenants,
    routes_transactions,
)
from frontend.access_log import AccessLog
from frontend.answers import Answer
from frontend.cors import Cors
from frontend.edge import Edge
from frontend.errors import gone
from frontend.request import Bodies, Request
from frontend.router import REST, Route, Router
from frontend.shell import Shell

V1_METHODS: Final = ("GET", "PUT", "PATCH", "DELETE", "OPTIONS")


async def v1_is_gone(_request: Request) -> Answer:
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


def build_app(shell: Shell) -> Edge:
    config = shell.config
    return Edge(
        shell,
        Router(all_routes()),
        Cors(frozenset(config.cors_allow_origins)),
        AccessLog(config.access_log),
        Bodies(config.body_bytes_max, config.body_timeout_s),
    )
