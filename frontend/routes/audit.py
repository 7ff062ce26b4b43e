"""The route of the audit log, below `/polychrome/v1`: its events, a page at a time.

Whoever has all tenants in its scope sees everything, whoever is bound to one sees what concerns it
(`shared.tenancy.audit.Event.concerns`). A page is in the order of the objects in the bucket: by days, and within a day
by processes.
"""

from __future__ import annotations

import asyncio
import datetime
import re
from typing import TYPE_CHECKING, Final

import msgspec

from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.routes.paths import CONTROL
from shared.errors import InvalidArgument, PermissionDenied
from shared.objects.port import ObjectNotFound
from shared.tenancy.audit import AuditOutcome, Entry, moment_of
from shared.tenancy.audit_search import AuditQuery, parts_between

if TYPE_CHECKING:
    from frontend.http.request import Request
    from shared.objects.port import ObjectStore
    from shared.process.clock import Clock
    from shared.tenancy.principal import Principal

AUDIT: Final = CONTROL + "/audit"
PERIOD_S: Final = 24 * 3600.0
"""Time up to now that is searched when the request names no beginning, in seconds."""
PAGE: Final = 100
PAGE_MAX: Final = 1000
"""Events of a page unless the request says otherwise, and at most."""
READ_BYTES_MAX: Final = 8 * 1024 * 1024
"""Bytes that are read for a page at most: a page may have few events, or none, and go on."""
SEARCHES_AT_ONCE: Final = 2

_CURSOR: Final = re.compile(r"(audit/2[A-Za-z0-9._=%/-]{1,300}):(\d{1,9})", re.ASCII)
_KNOWN: Final = ("tenant", "actor", "action", "outcome", "from", "to", "limit", "cursor")


class AuditRoutes:
    """Handler of the route."""

    def __init__(self, objects: ObjectStore, clock: Clock) -> None:
        self._objects = objects
        self._clock = clock
        self._searching = asyncio.Semaphore(SEARCHES_AT_ONCE)

    def routes(self) -> list[Route]:
        """The routes of this group."""
        return [Route("GET", AUDIT, self.search)]

    async def search(self, request: Request) -> HttpResponse:
        """A page of the events that the query names, and the cursor of the next page, null when there is none."""
        own = _own_tenant(request.principal)
        given = _given(request)
        query = AuditQuery(
            tenant=given.get("tenant"),
            own=own,
            actor=given.get("actor"),
            action=given.get("action"),
            outcome=_outcome(given.get("outcome")),
            since=_moment("from", given.get("from")) or moment_of(self._clock.now() - PERIOD_S),
            until=_moment("to", given.get("to")),
        )
        start, skip = _cursor(given.get("cursor"))
        limit = _limit(given.get("limit"))
        async with self._searching:
            entries, cursor = await self._page(query, start, skip, limit)
        return json_response({"events": msgspec.to_builtins(entries), "next": cursor})

    async def _page(self, query: AuditQuery, start: str, skip: int, limit: int) -> tuple[list[Entry], str | None]:
        """The events from the `skip`th one of the object `start` on, and where the next page begins."""
        entries: list[Entry] = []
        read = 0
        async for part in parts_between(self._objects, query.since, query.until, start):
            if read >= READ_BYTES_MAX or len(entries) >= limit:
                return entries, f"{part.key}:0"
            try:
                data = await self._objects.get(part.key)
            except ObjectNotFound:  # too old, and deleted meanwhile
                continue
            read += len(data)
            found = await asyncio.to_thread(query.found_in, data)
            left = found[skip if part.key == start else 0 :]
            taken = left[: limit - len(entries)]
            entries += taken
            if len(taken) < len(left):
                return entries, f"{part.key}:{len(found) - len(left) + len(taken)}"
        return entries, None


def _own_tenant(principal: Principal) -> str | None:
    """The tenant whose events alone the principal may see; None: all. Raises PermissionDenied."""
    if not principal.scope.whole_tenants:
        raise PermissionDenied("Permission denied: the scope has only a part of the tenant")
    return principal.scope.tenant


def _given(request: Request) -> dict[str, str]:
    """The parameters. Raises InvalidArgument for one that is not known, or comes twice: a filter that was mistyped
    would be none.
    """
    given: dict[str, str] = {}
    for name, text in request.rel_url.query.items():
        if name not in _KNOWN or name in given:
            raise InvalidArgument(f"Failed to deserialize query string: unknown or duplicate field `{name[:100]}`")
        given[name] = text
    return given


def _moment(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    try:
        moment = datetime.datetime.fromisoformat(text)
        return moment_of(moment.timestamp()) if moment.tzinfo is not None else _refuse_moment(name)
    except (ValueError, OverflowError, OSError):
        return _refuse_moment(name)


def _refuse_moment(name: str) -> str:
    raise InvalidArgument(f"`{name}` is no moment such as 2026-11-30T18:45:00Z")


def _outcome(text: str | None) -> AuditOutcome | None:
    if text is None:
        return None
    try:
        return AuditOutcome(text)
    except ValueError:
        known = ", ".join(outcome.value for outcome in AuditOutcome)
        raise InvalidArgument(f"`outcome` is none of {known}") from None


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE
    if not (text.isascii() and text.isdecimal() and len(text) < 9 and 0 < int(text) <= PAGE_MAX):
        raise InvalidArgument(f"`limit` is not a number from 1 to {PAGE_MAX}")
    return int(text)


def _cursor(text: str | None) -> tuple[str, int]:
    """The object at which a page begins, and how many of its events were in the pages before."""
    if text is None:
        return "", 0
    found = _CURSOR.fullmatch(text)
    if found is None:
        raise InvalidArgument("`cursor` is not what a page has given")
    return found[1], int(found[2])
