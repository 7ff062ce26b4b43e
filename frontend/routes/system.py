"""Routes about the server itself: its health, its version and limits, the identity of the client, and the reset."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.routes.visible import listed_databases
from shared.catalog import DEFAULT_DATABASE, DEFAULT_TENANT
from shared.errors import Forbidden, PolychromeError
from shared.limits import BATCH_SIZE_ADVICE
from shared.tenancy.principal import ANONYMOUS, Principal

if TYPE_CHECKING:
    from frontend.collections.row_cache import RowCache
    from frontend.http.request import Request
    from frontend.read.workers import Workers
    from shared.catalog import Catalog
    from shared.process.clock import Clock

API_VERSION: Final = "1.0.0"
"""The version of the API; a constant (docs/wire.md, section 4)."""

ANY: Final = "*"
DATABASES_SHOWN_MAX: Final = 256
"""Most databases that an identity names one by one."""

PROBE_TIMEOUT_S: Final = 1.0
"""Longest time that the log's server may take to answer a health check."""


class SystemRoutes:
    """Handlers of the system routes. `allow_reset`: whether POST /reset may delete everything."""

    def __init__(self, clock: Clock, catalog: Catalog, rows: RowCache, workers: Workers, *, allow_reset: bool) -> None:
        self._clock = clock
        self._catalog = catalog
        self._rows = rows
        self._workers = workers
        self._allow_reset = allow_reset

    def routes(self) -> list[Route]:
        """The routes of this group."""
        return [
            Route("GET", "/api/v2", self.heartbeat),
            Route("GET", "/api/v2/heartbeat", self.heartbeat),
            Route("GET", "/api/v2/healthcheck", self.healthcheck),
            Route("GET", "/api/v2/version", version),
            Route("GET", "/api/v2/pre-flight-checks", pre_flight_checks),
            Route("GET", "/api/v2/auth/identity", self.identity),
            Route("POST", "/api/v2/reset", self.reset),
        ]

    async def heartbeat(self, _request: Request) -> HttpResponse:
        """Nanoseconds since 1970."""
        return json_response({"nanosecond heartbeat": int(self._clock.now() * 1e9)})

    async def healthcheck(self, _request: Request) -> HttpResponse:
        """Ready when some query worker takes requests and the log's server answers; 503 otherwise."""
        log_ready = await self._log_answers()
        executor_ready = self._workers.ready
        healthy = log_ready and executor_ready
        return json_response(
            {
                "is_executor_ready": executor_ready,
                "is_log_client_ready": log_ready,
                "status": "ready" if healthy else "not ready",
            },
            status=200 if healthy else 503,
        )

    async def _log_answers(self) -> bool:
        """Whether Redis, which has both the log and the catalog, answers a question about the catalog."""
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                await self._catalog.tenants.get(DEFAULT_TENANT)
        except (PolychromeError, TimeoutError):
            return False
        return True

    async def identity(self, request: Request) -> HttpResponse:
        """The client as the server knows it. Exactly these members: the Python client's constructor breaks on others.
        Clients that were given no tenant and no database take them from here, if there is one of each.
        """
        principal = request.principal
        if principal is ANONYMOUS:
            return json_response({"user_id": "", "tenant": DEFAULT_TENANT, "databases": [DEFAULT_DATABASE]})
        tenant = principal.scope.tenant
        names = [ANY] if tenant is None else await self._database_names(principal, tenant)
        return json_response({"user_id": principal.id, "tenant": tenant or ANY, "databases": names})

    async def _database_names(self, principal: Principal, tenant: str) -> list[str]:
        """The databases that the principal sees, `*` in their place when they are many."""
        found = await listed_databases(self._catalog.databases, principal, tenant, DATABASES_SHOWN_MAX + 1, 0)
        return [ANY] if len(found) > DATABASES_SHOWN_MAX else [database.name for database in found]

    async def reset(self, _request: Request) -> HttpResponse:
        """Deletes everything, when the configuration allows it. Whatever the body holds is ignored."""
        if not self._allow_reset:
            raise Forbidden("Reset is disabled by config")
        await self._catalog.reset()
        self._rows.clear()
        return json_response(True)


async def version(_request: Request) -> HttpResponse:
    """The version of the API."""
    return json_response(API_VERSION)


async def pre_flight_checks(_request: Request) -> HttpResponse:
    """The limits that clients ask for before they send batches."""
    return json_response({"max_batch_size": BATCH_SIZE_ADVICE, "supports_base64_encoding": True})
