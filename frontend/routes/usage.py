"""The route of usage, below `/polychrome/v1`: what tenants used, by the hour, as JSON or as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from frontend.concurrency import off_loop
from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.routes.paths import CONTROL
from frontend.routes.tenants import missing_tenant
from shared.errors import InvalidArgument, PermissionDenied
from shared.tenancy.usage import HOUR_S, MEASURES
from shared.tenancy.usage_report import UsageRow, end_of_hours, shown_start

if TYPE_CHECKING:
    from frontend.http.request import Request
    from shared.process.clock import Clock
    from shared.tenancy.usage_report import UsageReader

USAGE: Final = CONTROL + "/usage"
HOURS_DEFAULT: Final = 24
"""Hours of a report that says no beginning."""
ROW_BYTES: Final = 300
"""About the bytes of a row of a report."""
CSV_TYPE: Final = "text/csv; charset=utf-8; header=present"
FORMATS: Final = ("json", "csv")
FORMULA_MARKS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "'")
"""Characters with which a formula begins in spreadsheets, and the apostrophe, which says that there is none."""
MOMENTS: Final = "2026-12-01, 2026-12-01T05:00:00Z or seconds since the epoch"
MOMENT_MAX_S: Final = 1e11
"""Moments up to the year 5138."""


class UsageRoutes:
    """Handlers of the route."""

    def __init__(self, usage: UsageReader, clock: Clock) -> None:
        self._usage = usage
        self._clock = clock

    def routes(self) -> list[Route]:
        """The routes of this group."""
        return [Route("GET", USAGE, self.get)]

    async def get(self, request: Request) -> HttpResponse:
        """The usage in the hours between `from` and `to`, of one tenant or of all that the sender may see. A principal
        that is bound to a tenant sees that one, if its scope has all of it.
        """
        tenant = _visible(request)
        begin, end = _hours(request, self._clock.now())
        as_csv = _wants_csv(request)
        rows = await self._usage.rows(begin, end, tenant)
        size = ROW_BYTES * len(rows)
        if as_csv:
            return HttpResponse(await off_loop(size, _csv, rows), content_type=CSV_TYPE)
        return await off_loop(size, json_response, {"from": shown_start(begin), "to": shown_start(end)} | _shown(rows))


def _visible(request: Request) -> str | None:
    """The tenant whose usage is shown, None for all. Raises NotFound for one that the sender does not see, and
    PermissionDenied for a principal that has only a part of its tenant.
    """
    scope, asked = request.principal.scope, _one(request, "tenant")
    if asked is not None and not scope.has_tenant(asked):
        raise missing_tenant(asked)
    if not scope.whole_tenants:
        raise PermissionDenied("Permission denied: the scope has only a part of the tenant")
    return asked if asked is not None else scope.tenant


def _hours(request: Request, now_s: float) -> tuple[int, int]:
    """The hours of the report, the second one exclusive: those which the range between the two moments touches."""
    begin_text, end_text = _one(request, "from"), _one(request, "to")
    end = end_of_hours(now_s) if end_text is None else -int(-_moment("to", end_text) // HOUR_S)
    begin = end - HOURS_DEFAULT if begin_text is None else int(_moment("from", begin_text) // HOUR_S)
    if begin >= end:
        raise InvalidArgument("Failed to deserialize query string: `from` has to be before `to`")
    return begin, end


def _moment(name: str, text: str) -> float:
    """A moment in seconds since the epoch: a day or a time in ISO 8601, UTC unless it says otherwise, or seconds."""
    try:
        if text.isascii() and text.isdigit() and len(text) >= len("1000000000"):
            seconds = float(text)
        else:
            moment = datetime.fromisoformat(text)
            seconds = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        seconds = -1.0
    if not 0 <= seconds < MOMENT_MAX_S:
        raise InvalidArgument(f"Failed to deserialize query string: {name}: expected a moment such as {MOMENTS}")
    return seconds


def _wants_csv(request: Request) -> bool:
    given = _one(request, "format")
    if given is None:
        return "text/csv" in request.headers.get("Accept", "")
    if given not in FORMATS:
        raise InvalidArgument(f"Failed to deserialize query string: format: expected one of {', '.join(FORMATS)}")
    return given == "csv"


def _one(request: Request, name: str) -> str | None:
    found = request.rel_url.query.getall(name, [])
    if len(found) > 1:
        raise InvalidArgument(f"Failed to deserialize query string: duplicate field `{name}`")
    return found[0] if found else None


def _shown(rows: Sequence[UsageRow]) -> dict[str, Any]:
    totals: dict[str, dict[str, int]] = {}
    hours: list[dict[str, Any]] = []
    for row in rows:
        used = {measure: row.used.get(measure, 0) for measure in MEASURES}
        hours.append({"hour": shown_start(row.hour), "tenant": row.tenant, "final": row.final} | used)
        of_tenant = totals.setdefault(row.tenant, dict.fromkeys(MEASURES, 0))
        for measure, amount in used.items():
            of_tenant[measure] += amount
    return {"hours": hours, "totals": [{"tenant": name} | used for name, used in sorted(totals.items())]}


def csv_name(name: str) -> str:
    """The name as CSV has it: behind an apostrophe if a spreadsheet would calculate it. A name that begins with an
    apostrophe gets another one, so that whoever takes away one has the name.
    """
    return f"'{name}" if name.lstrip(" ").startswith(FORMULA_MARKS) else name


def _csv(rows: Sequence[UsageRow]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(["hour", "tenant", "final", *MEASURES])
    for row in rows:
        used = [row.used.get(measure, 0) for measure in MEASURES]
        writer.writerow([shown_start(row.hour), csv_name(row.tenant), str(row.final).lower(), *used])
    return text.getvalue().encode()
