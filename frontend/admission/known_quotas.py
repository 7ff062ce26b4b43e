"""The quotas of the tenants that a frontend has to do with, as control records say them.

They are remembered while the *generation* of the control records is the one of the time when they were looked up. That
word is read once a second, so whatever an operator changes holds on every frontend within two seconds. While Redis does
not answer, what is remembered holds on.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, Protocol

from frontend.admission.tenant_quotas import TenantQuotas
from frontend.request_limits import RequestLimits
from shared.errors import Unavailable
from shared.tenancy.quotas import Resolved

TENANTS_MAX: Final = 10_000
"""Most tenants whose quotas are remembered."""


class PlanRecords(Protocol):
    """The records of plans and tenants, looked up: those of `shared.tenancy.plan_store`. Everything raises
    Unavailable.
    """

    async def generation(self) -> str:
        """The word that changes with the records."""
        ...

    async def any(self) -> bool:
        """Whether there is any record at all."""
        ...

    async def resolve(self, tenant: str) -> Resolved:
        """The quotas of a tenant."""
        ...


class KnownQuotas:
    """The quotas of tenants, remembered. `limits` are the process's own."""

    def __init__(self, records: PlanRecords, limits: RequestLimits) -> None:
        self._records = records
        self._limits = limits
        self._generation: str | None = None
        self._tenants: OrderedDict[str, tuple[TenantQuotas, str | None]] = OrderedDict()
        self._renewed: set[str] = set()
        self.any = False
        """Whether there are any plans or quotas: as long as there are none, nobody need ask."""

    async def look(self) -> bool:
        """Reads the generation; whether it is another one. Raises Unavailable."""
        word = await self._records.generation()
        if word == self._generation:
            return False
        self.any = await self._records.any()
        self._generation = word
        return True

    async def of(self, tenant: str) -> TenantQuotas:
        """The tenant's quotas. Raises Unavailable when they are not known, and cannot be looked up."""
        known, generation = self._tenants.get(tenant, (None, None))
        if known is not None and (generation == self._generation or tenant in self._renewed):
            self._tenants.move_to_end(tenant)
            return known
        generation = self._generation
        self._renewed.add(tenant)  # other requests go by what was known until the new quotas are here
        try:
            found = TenantQuotas(await self._records.resolve(tenant), self._limits)
        except Unavailable:
            if known is None:
                raise
            return known
        finally:
            self._renewed.discard(tenant)
        self._tenants[tenant] = (found, generation)
        self._tenants.move_to_end(tenant)
        while len(self._tenants) > TENANTS_MAX:
            self._tenants.popitem(last=False)
        return found

    def last_known(self, tenant: str) -> TenantQuotas | None:
        """The quotas that were known last: of a tenant of whom a request is being answered, those that it was admitted
        by.
        """
        return self._tenants[tenant][0] if tenant in self._tenants else None
