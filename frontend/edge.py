"""What surrounds every request, whatever its route: request id, errors, trace id, CORS, metrics, access log.

One middleware, so that its order is visible: the id is set first, the handler runs, its exception becomes an answer,
the answer gets its headers, the request is counted and logged.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import time
from typing import Final
from urllib.parse import unquote_to_bytes

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from prometheus_client import Counter, Gauge, Histogram

from frontend import errors
from frontend.access_log import ACCESS_LOG, MODULE
from frontend.body import PARSED, RECEIVING
from frontend.cors import Cors
from shared.errors import InvalidArgument, PolychromeError
from shared.telemetry import get_logger, request_id

METHOD_ORDER: Final = ("GET", "HEAD", "PUT", "PATCH", "POST", "DELETE", "OPTIONS")
_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.ASCII)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)

REQUESTS: Final = Counter("polychrome_frontend_requests_total", "Requests answered", ["method", "route", "status"])
SECONDS: Final = Histogram(
    "polychrome_frontend_request_seconds",
    "Time from a request's headers to its answer",
    ["route"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
IN_FLIGHT: Final = Gauge("polychrome_frontend_requests_in_flight", "Requests being worked on")

log = get_logger(MODULE)


class InFlight:
    """Counts the requests being worked on, so that a stopping process can wait for them, and remembers which open
    connections have sent a request at all.
    """

    def __init__(self) -> None:
        self.count = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.draining = False
        self.spoken: set[object] = set()

    def begin(self, connection: object) -> None:
        self.count += 1
        self.idle.clear()
        self.spoken.add(connection)

    def end(self) -> None:
        self.count -= 1
        if not self.count:
            self.idle.set()


IN_FLIGHT_KEY: Final = web.AppKey("in_flight", InFlight)


def edge(cors: Cors) -> Middleware:
    """The middleware of the application."""

    @web.middleware
    async def around(request: web.Request, handler: Handler) -> web.StreamResponse:
        started = time.perf_counter()
        in_flight = request.app[IN_FLIGHT_KEY]
        in_flight.begin(request.protocol)
        IN_FLIGHT.inc()
        token = request_id.set(request_id_of(request))
        try:
            response = await _answer(request, handler, cors)
            _finish(request, response, cors, in_flight.draining)
            _observe(request, response.status, time.perf_counter() - started)
            return response
        finally:
            request_id.reset(token)
            request.app[RECEIVING].leave(request.protocol)
            request.app[PARSED].leave(request.protocol)
            IN_FLIGHT.dec()
            in_flight.end()

    return around


def request_id_of(request: web.Request) -> str:
    """The caller's id for this request when it is one that can be logged, else a new one."""
    given = request.headers.get("X-Request-Id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


def trace_id_of(request: web.Request) -> str:
    """The trace that W3C `traceparent` names, all zeros without one."""
    found = _TRACEPARENT.fullmatch(request.headers.get("Traceparent", ""))
    return found[1] if found else errors.NO_TRACE


async def _answer(request: web.Request, handler: Handler, cors: Cors) -> web.StreamResponse:
    if cors.enabled and request.method == "OPTIONS":
        return cors.preflight()
    try:
        if "%" in request.path:
            _check_encoding(request)
        return await handler(request)
    except PolychromeError as error:
        _log_fault(error)
        return errors.answer_of(error, request.path)
    except web.HTTPException as refused:
        return router_answer(refused)
    except Exception:
        log.exception("unforeseen")
        return errors.internal_error()


def _check_encoding(request: web.Request) -> None:
    """Raises InvalidArgument for a parameter in the path that is no UTF-8. It would stay percent-encoded, and name what
    its own spelling, encoded once more, names too.
    """
    for part, raw in zip(route_of(request).split("/"), request.rel_url.raw_path.split("/"), strict=False):
        try:
            unquote_to_bytes(raw).decode()
        except UnicodeDecodeError:
            raise InvalidArgument(f"Invalid URL: Invalid UTF-8 in `{part.strip('{}')}`") from None


def _log_fault(error: PolychromeError) -> None:
    """Faults of ours are logged here with their cause; a client's are in the access log by their status."""
    status = errors.wire_of(error).status
    if status == 500:
        log.error("fault", code=error.code, message=error.message, exc_info=error)
    elif status in (503, 504):
        log.warning("unavailable", code=error.code, message=error.message)


def router_answer(refused: web.HTTPException) -> web.Response:
    """404 and 405 of the router: an empty body, and for 405 the methods that exist."""
    response = web.Response(status=refused.status)
    if isinstance(refused, web.HTTPMethodNotAllowed):
        response.headers["Allow"] = ",".join(method for method in METHOD_ORDER if method in refused.allowed_methods)
    return response


def _finish(request: web.Request, response: web.StreamResponse, cors: Cors, draining: bool) -> None:
    response.headers["X-Request-Id"] = request_id.get()
    if response.status >= 400:
        response.headers["Chroma-Trace-Id"] = trace_id_of(request)
    if cors.enabled:
        cors.mark(response, request.headers.get("Origin"))
    if draining:
        response.force_close()


def route_of(request: web.Request) -> str:
    """The route's pattern, a bounded set: never the path itself."""
    resource = request.match_info.route.resource
    return "unknown" if resource is None else resource.canonical


@functools.cache
def _counter(method: str, route: str, status: int) -> Counter:
    """Looking a metric up by its labels costs more than counting."""
    return REQUESTS.labels(method, route, str(status))


@functools.cache
def _histogram(route: str) -> Histogram:
    return SECONDS.labels(route)


def _observe(request: web.Request, status: int, seconds: float) -> None:
    route = route_of(request)
    method = request.method if request.method in METHOD_ORDER else "other"
    _counter(method, route, status).inc()
    _histogram(route).observe(seconds)
    request.app[ACCESS_LOG].note(request, method, route, status, seconds)


async def tidy_headers(_request: web.Request, response: web.StreamResponse) -> None:
    """Last touch before the headers leave: no word about the server, no content type on a plain 413."""
    response.headers.popall("Server", None)
    if response.status == 413 and response.content_type != errors.JSON_TYPE:
        response.headers.popall("Content-Type", None)
