"""The order of compactions: tenants take turns by the bytes that are compacted for them. Pure.

It is start-time fair queueing (Goyal, Vin and Cheng, 1996) over the tenants that have something due. Each has an
account of what was compacted for it. The tenant with the smallest one comes next, with its most urgent shard, and is
charged for that; and so on, until all shards have their places. A tenant that comes anew begins where the others are:
it has saved nothing up. So thousands of dirty shards of one tenant delay another one's only shard by the compactions
that are running and one more, and not by all that came before it.

What a queue holds are urgencies. The shards get those that there are, the greatest one first: so they still compare
with those of other jobs, and a tenant that is alone has its shards compacted by urgency.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

JOB_BYTES: Final = 1 << 20
"""Cost of a compaction beside its bytes, in bytes: that of a graph, a manifest, uploads."""

ACCOUNTS_MAX: Final = 10_000
"""Tenants without anything due whose accounts are remembered."""


@dataclass(frozen=True, slots=True)
class DueShard:
    """A shard whose compaction is due, and the bytes in its log. `tenant` is empty where it is not known yet: all such
    shards take turns as one tenant's.
    """

    collection_id: str
    number: int
    urgency: float
    tenant: str
    bytes: int

    @property
    def cost(self) -> int:
        """Cost of its compaction, in bytes."""
        return JOB_BYTES + self.bytes


class Turns:
    """The accounts of tenants."""

    def __init__(self) -> None:
        self._accounts: dict[str, float] = {}

    def charge(self, tenant: str, cost: float) -> None:
        """Something of this cost was compacted for the tenant."""
        self._accounts[tenant] = self._accounts.get(tenant, 0.0) + cost

    def order(self, due: Sequence[DueShard]) -> list[tuple[DueShard, float]]:
        """The shards as they should be compacted, each with the priority that says so."""
        by_tenant: dict[str, list[DueShard]] = {}
        for shard in sorted(due, key=lambda one: one.urgency):
            by_tenant.setdefault(shard.tenant, []).append(shard)
        self._begin(by_tenant.keys())
        # Of equal accounts, the most urgent goes first.
        turns = [(self._accounts[tenant], -shards[-1].urgency, tenant) for tenant, shards in by_tenant.items()]
        heapq.heapify(turns)
        ordered: list[DueShard] = []
        while turns:
            account, _, tenant = turns[0]
            shards = by_tenant[tenant]
            ordered.append(shards.pop())
            if shards:
                heapq.heapreplace(turns, (account + ordered[-1].cost, -shards[-1].urgency, tenant))
            else:
                heapq.heappop(turns)
        return list(zip(ordered, _falling(sorted((shard.urgency for shard in due), reverse=True)), strict=True))

    def _begin(self, active: Collection[str]) -> None:
        """Puts tenants that come anew where the others are, and forgets the accounts of those that are behind them."""
        known = [self._accounts[tenant] for tenant in active if tenant in self._accounts]
        least = min(known, default=0.0)
        self._accounts |= {tenant: max(least, self._accounts.get(tenant, least)) for tenant in active}
        ahead = [tenant for tenant, account in self._accounts.items() if account > least and tenant not in active]
        kept = {*active, *ahead[-ACCOUNTS_MAX:]}
        self._accounts = {tenant: account - least for tenant, account in self._accounts.items() if tenant in kept}


def _falling(urgencies: Iterable[float]) -> Iterator[float]:
    """The urgencies, each below the one before it: of equal ones a queue would take any."""
    last = math.inf
    for urgency in urgencies:
        last = min(urgency, math.nextafter(last, -math.inf))
        yield last
