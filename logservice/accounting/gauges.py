"""Metrics of what tenants have and use, with a bounded number of labels: of each amount the greatest ones have the
names of their tenants, and the others are added up as `other`.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from typing import Final

from prometheus_client import Gauge

from logservice.accounting.stored_counter import StoredCounter
from logservice.loops import SWEEP_REST_RATIO, every
from shared.process.clock import Clock
from shared.tenancy.usage import by_tenant, hour_of, merged
from shared.tenancy.usage_table import UsageTable

TENANTS_MAX: Final = 20
"""Tenants of each amount that have labels of their own."""
OTHER: Final = "other"
SHOW_S: Final = 60.0

STORED: Final = Gauge(
    "polychrome_logservice_tenant_stored", "Records and bytes that tenants have stored.", ["tenant", "amount"]
)
USED: Final = Gauge(
    "polychrome_logservice_tenant_used", "Amounts that tenants have used in the present hour.", ["tenant", "measure"]
)


def greatest(amounts: Mapping[str, int], count: int = TENANTS_MAX) -> dict[str, int]:
    """The greatest amounts by tenant, and under OTHER the sum of all others; without what is 0. A tenant that has the
    name OTHER is counted there.
    """
    named = {tenant: amount for tenant, amount in amounts.items() if amount and tenant not in (OTHER, "")}
    found = dict(heapq.nlargest(count, sorted(named.items()), key=lambda pair: pair[1]))
    rest = sum(amounts.values()) - sum(found.values())
    return {**found, OTHER: rest} if rest else found


class TenantGauges:
    """The metrics of one leader; those of one that leads no longer are gone."""

    def __init__(self, stored: StoredCounter, table: UsageTable, clock: Clock) -> None:
        self._stored = stored
        self._table = table
        self._clock = clock

    async def run(self) -> None:
        """A loop, until it is cancelled: shows what is counted each minute."""
        try:
            await every("show_usage", SHOW_S, self.step, self._clock, SWEEP_REST_RATIO)
        finally:
            STORED.clear()
            USED.clear()

    async def step(self) -> None:
        """Shows what is counted now. Raises Unavailable, Corrupt."""
        live = await self._table.read(hour_of(self._clock.now()))
        stored, used = _by_measure(self._stored_amounts()), _by_measure(by_tenant(merged(live.entries)))
        for gauge, amounts in ((STORED, stored), (USED, used)):
            gauge.clear()  # nobody reads it before the loop of events goes on
            for measure, of_tenants in amounts.items():
                for tenant, amount in greatest(of_tenants).items():
                    gauge.labels(tenant, measure).set(amount)

    def _stored_amounts(self) -> dict[str, dict[str, int]]:
        return {
            tenant: {"records": amounts.sums.records, "bytes": amounts.sums.bytes}
            for tenant, amounts in self._stored.written.items()
        }


def _by_measure(by_name: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    """The amounts of all tenants by measure."""
    found: dict[str, dict[str, int]] = {}
    for tenant, amounts in by_name.items():
        for measure, amount in amounts.items():
            found.setdefault(measure, {})[tenant] = amount
    return found
