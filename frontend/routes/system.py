"""Routes about the server itself."""

from __future__ import annotations

import asyncio
from typing import Final

from frontend.context import Context
from frontend.http.request import Request
from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from shared.errors import Forbidden, PolychromeError
from shared.limits import BATCH_SIZE_ADVICE

API_VERSION: Final = "1.0.0"
"""The version of the API; a constant (docs/wire.md, section 4)."""

DEFAULT_TENANT: Final = "default_tenant"
DEFAULT_DATABASE: Final = "default_database"
PROBE_TIMEOUT_S: Final = 1.0


async def heartbeat(request: Request) -> HttpResponse:
    return json_response({"nanosecond heartbeat": int(request.context.clock.now() * 1e9)})


async def healthcheck(request: Request) -> HttpResponse:
    """Ready when some query worker takes requests and the log's server answers."""
    context = request.context
    log_ready = await _log_answers(context)
    executor_ready = context.workers.ready
    healthy = log_ready and executor_ready
    return json_response(
        {
            "is_executor_ready": executor_ready,
            "is_log_client_ready": log_ready,
            "status": "ready" if healthy else "not ready",
        },
        status=200 if healthy else 503,
    )


async def _log_answers(context: Context) -> bool:
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            await context.catalog.get_tenant(DEFAULT_TENANT)
    except (PolychromeError, TimeoutError):
        return False
    return True


async def version(_request: Request) -> HttpResponse:
    return json_response(API_VERSION)


async def pre_flight_checks(_request: Request) -> HttpResponse:
    return json_response({"max_batch_size": BATCH_SIZE_ADVICE, "supports_base64_encoding": True})


async def identity(_request: Request) -> HttpResponse:
    """Exactly these members: the Python client's constructor breaks on any other."""
    return json_response({"user_id": "", "tenant": DEFAULT_TENANT, "databases": [DEFAULT_DATABASE]})


async def reset(request: Request) -> HttpResponse:
    """Deletes everything, when the configuration allows it. Whatever the body holds is ignored."""
    context = request.context
    if not context.config.allow_reset:
        raise Forbidden("Reset is disabled by config")
    await context.catalog.reset()
    context.rows.clear()
    return json_response(True)


def routes() -> list[Route]:
    return [
        Route("GET", "/api/v2", heartbeat),
        Route("GET", "/api/v2/heartbeat", heartbeat),
        Route("GET", "/api/v2/healthcheck", healthcheck),
        Route("GET", "/api/v2/version", version),
        Route("GET", "/api/v2/pre-flight-checks", pre_flight_checks),
        Route("GET", "/api/v2/auth/identity", identity),
        Route("POST", "/api/v2/reset", reset),
    ]
