"""Quotas of what is stored: records and logical bytes of a tenant, its databases and its collections.

Those of tenants and databases are what the log service counted last (`shared.tenancy.stored`), a minute ago at most and
a few seconds after a compaction. Those of a collection are what its manifests and its log say now. Both are remembered
for a second. So a tenant gets beyond its quota by what it writes until that is counted, and no further.

Amounts that nobody knows count as none: those of a new tenant, or those that are damaged, of which the log says so.
Then a request is refused that alone would be more than the quota.
Deletes are never asked about: they are the way out for whoever is full.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from frontend.admission.tenant_quotas import Place, PlaceQuotas
from shared.errors import Corrupt
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.tenancy.quotas import Quota
from shared.tenancy.stored import StoredAmounts, StoredSums

if TYPE_CHECKING:
    from shared.catalog import Collection

AGE_S_MAX: Final = 1.0
"""Time for which amounts are remembered, in seconds."""
PLACES_MAX: Final = 10_000
"""Most tenants, and most collections, whose amounts are remembered."""

NOTHING: Final = StoredSums(0, 0)

_Amounts = StoredAmounts | StoredSums | None

log = get_logger(__name__)


class TenantAmounts(Protocol):
    """The amounts of tenants: `shared.tenancy.stored`."""

    async def read(self, tenant: str) -> StoredAmounts | None:
        """The amounts of a tenant, None while nobody has counted them. Raises Unavailable, Corrupt."""
        ...


class CollectionAmounts(Protocol):
    """The amounts of collections: `frontend.admission.collection_amounts`."""

    async def read(self, collection: Collection) -> StoredSums:
        """The amounts of a collection. Raises Unavailable, Corrupt."""
        ...


class GrowingRequest(Protocol):
    """A request that makes its tenant store more: `frontend.http.request`."""

    quotas: PlaceQuotas

    def check_quota(self, quota: Quota, usage: float, most: float | None = None) -> None:
        """Raises QuotaExceeded when the usage is more than `most`, or else than the quota allows."""
        ...


class StoredQuotas:
    """Refuses requests by which a place would have more than it may store."""

    def __init__(self, tenants: TenantAmounts, collections: CollectionAmounts, clock: Clock) -> None:
        self._tenants = tenants
        self._collections = collections
        self._clock = clock
        self._known: OrderedDict[Place, tuple[_Amounts, float]] = OrderedDict()
        self._reading: dict[Place, asyncio.Task[_Amounts]] = {}

    async def check(self, request: GrowingRequest, collection: Collection, records: int) -> None:
        """Raises QuotaExceeded when the request would add `records` records (0 for one that changes some) where they
        are too many, or writes where there are as many bytes as there may be; and Unavailable.
        """
        for place, quotas in request.quotas.stored:
            sums = await self._sums(place, collection) or NOTHING
            _check(request, quotas, sums, records)

    async def _sums(self, place: Place, collection: Collection) -> StoredSums | None:
        """The amounts of a place; None when nobody knows them."""
        if len(place) == len(("tenant", "", "id")):
            return await self._of_collection(place, collection)
        amounts = await self._of_tenant(place[:1])
        if amounts is None:
            return None
        return amounts.sums if len(place) == 1 else amounts.of_database(place[1])

    async def _of_collection(self, place: Place, collection: Collection) -> StoredSums | None:
        try:
            found = await self._read(place, lambda: self._collections.read(collection))
        except Corrupt as error:  # reported by whoever reads the records
            log.warning("stored_amounts_unknown", collection=collection.id, message=error.message)
            return None
        return found if isinstance(found, StoredSums) else None

    async def _of_tenant(self, place: Place) -> StoredAmounts | None:
        try:
            found = await self._read(place, lambda: self._tenants.read(place[0]))
        except Corrupt as error:
            log.error("stored_amounts_not_read", of_tenant=place[0], message=error.message)  # noqa: TRY400 (said, and not a fault of the code)
            return None
        return found if isinstance(found, StoredAmounts) else None

    async def _read(self, place: Place, read: Callable[[], Coroutine[Any, Any, _Amounts]]) -> _Amounts:
        """The amounts, read anew when they are too old. Requests that need them meanwhile wait for the same read."""
        known = self._known.get(place)
        if known is not None and self._clock.monotonic() - known[1] <= AGE_S_MAX:
            return known[0]
        reading = self._reading.get(place)
        if reading is None:
            reading = self._reading[place] = asyncio.create_task(self._read_anew(place, read))
            reading.add_done_callback(_retrieve_failure)
        return await asyncio.shield(reading)

    async def _read_anew(self, place: Place, read: Callable[[], Coroutine[Any, Any, _Amounts]]) -> _Amounts:
        try:
            amounts = await read()
        finally:
            del self._reading[place]
        self._known[place] = amounts, self._clock.monotonic()
        self._known.move_to_end(place)
        while len(self._known) > PLACES_MAX:
            self._known.popitem(last=False)
        return amounts


def _retrieve_failure(reading: asyncio.Task[_Amounts]) -> None:
    """The failure of a read is that of the requests that wait for it, of whom there may be none left."""
    if not reading.cancelled():
        reading.exception()


def _check(request: GrowingRequest, quotas: Mapping[Quota, float], sums: StoredSums, records: int) -> None:
    """Raises QuotaExceeded."""
    most = quotas.get(Quota.RECORDS)
    if most is not None and records:
        request.check_quota(Quota.RECORDS, sums.records + records, most)
    most = quotas.get(Quota.BYTES)
    if most is not None and sums.bytes >= most:
        request.check_quota(Quota.BYTES, max(sums.bytes, most + 1), most)
