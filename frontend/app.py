"""The HTTP application: routes, middleware, what handlers find in it. Nothing is opened here."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from frontend import (
    docs_page,
    records,
    routes_collections,
    routes_databases,
    routes_system,
    routes_tenants,
    routes_unimplemented,
)
from frontend.access_log import ACCESS_LOG, AccessLog, flush_at_the_end
from frontend.body import (
    BODY_BYTES_MAX,
    BODY_TIMEOUT_S,
    PARSED,
    PARSED_BODIES,
    RECEIVED_BODIES,
    RECEIVING,
)
from frontend.cors import Cors
from frontend.edge import IN_FLIGHT_KEY, InFlight, edge, tidy_headers
from frontend.errors import gone
from frontend.room import Room
from frontend.shell import SHELL, Shell

V1_METHODS: Final = ("GET", "PUT", "PATCH", "DELETE", "OPTIONS")
_PARAMETER: Final = re.compile(r"\{(\w+)\}")


async def v1_is_gone(_request: web.Request) -> web.Response:
    return gone("The v1 API is deprecated. Please use /v2 apis")


def all_routes() -> list[web.RouteDef]:
    """Every route of the API; those of records first, because they are asked for most."""
    v1 = [web.route(method, "/api/v1/{tail:.+}", v1_is_gone) for method in V1_METHODS]
    return [
        *_any_segment(records.routes()),
        *_any_segment(routes_collections.routes()),
        *_any_segment(routes_unimplemented.routes()),
        *_any_segment(routes_databases.routes()),
        *_any_segment(routes_tenants.routes()),
        *routes_system.routes(),
        *docs_page.routes(),
        *v1,
    ]


def _any_segment(routes: Iterable[web.RouteDef]) -> list[web.RouteDef]:
    """Parameters that match any segment: by themselves they would not match one with a brace."""
    return [
        web.RouteDef(route.method, _PARAMETER.sub(r"{\1:[^/]+}", route.path), route.handler, route.kwargs)
        for route in routes
    ]


def build_app(shell: Shell) -> web.Application:
    config = shell.config
    app = web.Application(middlewares=[edge(Cors(frozenset(config.cors_allow_origins)))])
    app[SHELL] = shell
    app[IN_FLIGHT_KEY] = InFlight()
    app[ACCESS_LOG] = AccessLog(config.access_log)
    app.on_cleanup.append(flush_at_the_end)
    app[BODY_BYTES_MAX] = config.body_bytes_max
    app[BODY_TIMEOUT_S] = config.body_timeout_s
    app[RECEIVING] = Room(RECEIVED_BODIES * config.body_bytes_max)
    app[PARSED] = Room(PARSED_BODIES * config.body_bytes_max)
    app.on_response_prepare.append(tidy_headers)
    app.add_routes(all_routes())
    return app
