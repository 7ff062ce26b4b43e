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
from shared.tenancy.usage import HOUR_S, Measure, Subject, UsageTotals

KINDS: Final[Mapping[Metered, Measure]] = {
    Metered.READ: Measure.REQUESTS_READ,
    Metered.WRITE: Measure.REQUESTS_WRITE,
    Metered.CATALOG_READ: Measure.REQUESTS_CATALOG_READ,
    Metered.CATALOG_WRITE: Measure.REQUESTS_CATALOG_WRITE,
    Metered.CONTROL: Measure.REQUESTS_CONTROL,
}
"""How the requests of each kind are counted; those of other kinds are not."""

# Members of an enumeration are slow to hash and to take a value of, and each request does: hence plain names.
_KINDS: Final = {kind.name: measure.value for kind, measure in KINDS.items()}
_ROWS: Final = Measure.ROWS_SCANNED.value
_BYTES: Final = Measure.BYTES_SCANNED.value
_TOKENS: Final = Measure.EMBEDDING_TOKENS.value
_QUERIES: Final = Measure.QUERIES.value
_RETURNED: Final = Measure.BYTES_RETURNED.value

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
        metered = request.access.metered
        kind = _KINDS.get(metered._name_)
        if not tenant or kind is None:
            return
        used: dict[str, int] = {}
        if meter.rows_scanned:
            used[_ROWS] = meter.rows_scanned
            used[_BYTES] = meter.bytes_scanned
        if meter.embedding_tokens:
            used[_TOKENS] = meter.embedding_tokens
        if status < REFUSED:
            used[kind] = 1
            if meter.queries:
                used[_QUERIES] = meter.queries
            if metered is _READ and request.method != "HEAD":
                used[_RETURNED] = sent_bytes
        if used:
            self._totals.add(int(self._clock.now()) // HOUR_S, Subject(tenant), used)
