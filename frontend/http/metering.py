"""Counts what each request used (`shared.tenancy.usage`), once, when it has been answered.

A request is counted for the tenant in its path when it was served: refused ones are not, and so cannot name tenants
that do not exist. What was done for it before it failed (rows scanned, texts embedded) is counted in any case.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from frontend.access.access_table import Metered
from frontend.http.request import Request
from shared.process import metering
from shared.process.clock import Clock
from shared.process.metering import Meter
from shared.tenancy.usage import Measure, Subject, UsageTotals, hour_of

KINDS: Final[Mapping[Metered, str]] = {
    Metered.READ: Measure.REQUESTS_READ.value,
    Metered.WRITE: Measure.REQUESTS_WRITE.value,
    Metered.CATALOG_READ: Measure.REQUESTS_CATALOG_READ.value,
    Metered.CATALOG_WRITE: Measure.REQUESTS_CATALOG_WRITE.value,
    Metered.CONTROL: Measure.REQUESTS_CONTROL.value,
}
"""How the requests of each kind are counted; those of other kinds are not."""

REFUSED: Final = 400
"""Statuses from here on say that the request was not served."""

_READ: Final = Metered.READ


class RequestMetering:
    """Counts the requests of a frontend."""

    def __init__(self, totals: UsageTotals, clock: Clock) -> None:
        self._totals = totals
        self._clock = clock

    def begin(self) -> Meter:
        """The meter of a request that begins in this task."""
        meter = Meter()
        metering.current.set(meter)
        return meter

    def end(self, request: Request, meter: Meter, status: int, sent_bytes: int) -> None:
        """Counts a request that was answered with this status and so many bytes of a body."""
        if request.hidden is not None:
            return
        tenant = request.path_params.get("tenant") or request.principal.tenant
        kind = KINDS.get(request.access.metered)
        if not tenant or kind is None:
            return
        used = {
            Measure.ROWS_SCANNED.value: meter.rows_scanned,
            Measure.BYTES_SCANNED.value: meter.bytes_scanned,
            Measure.EMBEDDING_TOKENS.value: meter.embedding_tokens,
        }
        if status < REFUSED:
            used[kind] = 1
            used[Measure.QUERIES.value] = meter.queries
            if request.access.metered is _READ and request.method != "HEAD":
                used[Measure.BYTES_RETURNED.value] = sent_bytes
        if any(used.values()):
            self._totals.add(hour_of(self._clock.now()), Subject(tenant), used)
