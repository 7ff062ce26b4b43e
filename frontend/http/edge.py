"""The layer around every request, whatever its route: request id, errors, trace id, CORS, metrics, access log.

One method, so that its order is visible: the id is set first, the handler runs, its exception becomes an answer,
the answer gets its headers, the request is counted and logged.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import os
import re
import time
from typing import Any, Final, Protocol

from prometheus_client import Counter, Gauge, Histogram

from frontend.access.access_table import PUBLIC, Access
from frontend.access.authorization import judge
from frontend.access.credentials import AUTHORIZATION, CHROMA_TOKEN, Headers
from frontend.http import errors
from frontend.http.access_log import MODULE, AccessLog
from frontend.http.browser_guard import BrowserGuard
from frontend.http.cors import Cors
from frontend.http.metering import RequestMetering
from frontend.http.request import Bodies, Request
from frontend.http.responses import HttpResponse, StreamedResponse
from frontend.http.router import METHOD_ORDER, Router
from frontend.http.size_limits import check_sizes
from frontend.request_limits import RequestLimits
from shared.errors import PolychromeError
from shared.process.telemetry import get_logger, request_id, tenant
from shared.tenancy.principal import Principal


class Authentication(Protocol):
    """Finds the principal of a request: `frontend.access.authenticator`."""

    def known(self, headers: Headers) -> Principal | None:
        """The principal of a credential that was verified before and still holds; None: ask."""
        ...

    async def __call__(self, headers: Headers, remote: str | None) -> Principal:
        """The principal, by the headers and the address of the sender. Raises Unauthenticated, Unavailable."""
        ...


class Auditing(Protocol):
    """Writes down what was done: `frontend.audit.log`."""

    def note(self, request: Request, status: int) -> None:
        """A request was answered with this status; 0: its client has no answer. Never waits, never fails."""
        ...


class Admitting(Protocol):
    """Decides whether a request is worked on now: `frontend.admission`."""

    @property
    def active(self) -> bool:
        """Whether anything bounds anybody."""
        ...

    async def admit(self, request: Request, tenant: str) -> None:
        """Sets the request's quotas and limits, and its ticket; `tenant` is the one whose work it is. Raises
        RateLimited, Unavailable.
        """
        ...


_TRACEPARENT: Final = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?", re.ASCII)
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}", re.ASCII)

REQUESTS: Final = Counter("polychrome_frontend_requests_total", "Requests answered.", ["method", "route", "status"])
SECONDS: Final = Histogram(
    "polychrome_frontend_request_seconds",
    "Time from a request's headers to its answer.",
    ["route"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
IN_FLIGHT: Final = Gauge("polychrome_frontend_requests_in_flight", "Requests being worked on.")

log = get_logger(MODULE)


class InFlight:
    """Counts the requests being worked on, so that a stopping process can wait for them (`idle`), and remembers which
    open connections have sent a request at all.
    """

    def __init__(self) -> None:
        self.count = 0
        self.idle = asyncio.Event()
        self.idle.set()
        self.draining = False
        self.heard: set[object] = set()
        """Open connections that have sent a request."""

        IN_FLIGHT.set_function(lambda: self.count)

    def begin(self, connection: object) -> None:
        """A request has come on this connection."""
        self.count += 1
        self.idle.clear()
        self.heard.add(connection)

    def end(self) -> None:
        """A request has been answered, or its client is gone."""
        self.count -= 1
        if not self.count:
            self.idle.set()


class Edge:
    """Answers every request: finds its handler by `router` and does what is due before and after the handler."""

    def __init__(
        self,
        router: Router,
        cors: Cors,
        access_log: AccessLog,
        bodies: Bodies,
        limits: RequestLimits,
        send_timeout_s: float,
        authenticator: Authentication | None = None,
        guard: BrowserGuard | None = None,
        audit: Auditing | None = None,
        admission: Admitting | None = None,
        metering: RequestMetering | None = None,
    ) -> None:
        self._metering = metering
        self._audit = audit
        self._admission = admission
        self._guard = guard or BrowserGuard()
        self.in_flight = InFlight()
        self.access_log = access_log
        self.bodies = bodies
        self.limits = limits
        self._send_timeout_s = send_timeout_s
        self._router = router
        self._cors = cors
        self._authenticator = authenticator

    def request(self, *args: Any) -> Request:
        """The request factory that aiohttp calls, with the arguments of its own requests."""
        return Request(self.bodies, self.limits, self._send_timeout_s, *args, asyncio.get_running_loop())

    async def __call__(self, request: Request) -> HttpResponse:
        started = time.perf_counter()
        self.in_flight.begin(request.protocol)
        token = request_id.set(request_id_of(request))
        status, answer = 0, None
        meter = None if self._metering is None else self._metering.begin()
        try:
            answer = await self._answer(request)
            self._finish(request, answer)
            status = await answer.send(request) if isinstance(answer, StreamedResponse) else answer.status
            self._observe(request, status, time.perf_counter() - started)
            if self._metering is not None and meter is not None:
                self._metering.end(request, meter, status, answer.bytes_out)
            return answer
        finally:
            if request.ticket is not None:
                request.ticket.close(request.body_bytes, 0 if answer is None else answer.bytes_out)
            self.bodies.release(request.protocol)
            self.in_flight.end()
            if self._audit is not None:  # last: whatever fails here, nothing that was taken is kept
                self._audit.note(request, status)
            request_id.reset(token)

    async def _answer(self, request: Request) -> HttpResponse:
        if request.method == "OPTIONS" and self._cors.enabled:
            return self._cors.preflight()
        try:
            check_sizes(request)
            self._guard.check(request.method, request.headers)
            match = self._router.find(request.method, request.rel_url.raw_path)
            handler, request.pattern, request.path_params, request.access = match
            access = request.access
            if self._authenticator is not None and access is not PUBLIC:
                principal = self._authenticator.known(request.headers)
                if principal is None:
                    principal = await self._authenticator(request.headers, request.remote)
                _admit(request, access, principal)
            # Of the connection's task, so set by each request. Work on another tenant's path is the sender's.
            whose = request.tenant = request.principal.tenant or request.path_params.get("tenant", "")
            tenant.set(whose)
            if self._admission is not None and self._admission.active:
                await self._admission.admit(request, whose)
            return await handler(request)
        except PolychromeError as raised:
            error = request.quotas.refusal(raised, request.access.actions or request.access.any_of)
            _log_fault(error)
            if request.hidden is not None:
                error.message = request.hidden.unveil(error.message)
            return errors.error_response(error, request.path)
        except Exception:  # a fault of the server: logged with its stack, and 500 to the client
            log.exception("unforeseen")
            return errors.internal_error_response()

    def _finish(self, request: Request, answer: HttpResponse) -> None:
        answer.add("X-Request-Id", request_id.get())
        answer.add("X-Content-Type-Options", "nosniff")
        if AUTHORIZATION in request.headers or CHROMA_TOKEN in request.headers:
            answer.add("Cache-Control", "no-store")
        if answer.status >= 400:
            answer.add("Chroma-Trace-Id", trace_id_of(request))
        if self._cors.enabled:
            self._cors.mark(answer, request.headers.get("Origin"))
        if self.in_flight.draining:
            answer.force_close()

    def _observe(self, request: Request, status: int, seconds: float) -> None:
        pattern = request.pattern
        method = request.method if request.method in METHOD_ORDER else "other"
        _counter(method, pattern, status).inc()
        _histogram(pattern).observe(seconds)
        self.access_log.note(request, method, pattern, status, seconds)


_new_ids: Final = map(f"{os.urandom(8).hex()}{{:016x}}".format, itertools.count())


def _admit(request: Request, access: Access, principal: Principal) -> None:
    """Sets the principal, and has the route's row decide, before anything of the body is read. Raises
    PermissionDenied.
    """
    request.principal = principal
    hidden = judge(principal, access, request.path_params)
    if hidden is not None:
        request.hidden = hidden
        request.path_params = {**request.path_params, hidden.param: hidden.stand_in}


def request_id_of(request: Request) -> str:
    """The caller's id for this request when it is one that can be logged, else a new one."""
    given = request.headers.get("X-Request-Id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else next(_new_ids)


def trace_id_of(request: Request) -> str:
    """The trace that W3C `traceparent` names, all zeros without one."""
    found = _TRACEPARENT.fullmatch(request.headers.get("Traceparent", ""))
    return found[1] if found else errors.NO_TRACE


def _log_fault(error: PolychromeError) -> None:
    """Logs faults of the server with their cause. Those of clients are in the access log, by their status."""
    status = errors.wire_of(error).status
    if status == 500:
        log.error("fault", code=error.code, message=error.message, exc_info=error)
    elif status in (503, 504, 507):
        log.warning("unavailable", code=error.code, message=error.message)


@functools.cache
def _counter(method: str, route: str, status: int) -> Counter:
    """Looking a metric up by its labels costs more than counting."""
    return REQUESTS.labels(method, route, str(status))


@functools.cache
def _histogram(route: str) -> Histogram:
    return SECONDS.labels(route)
