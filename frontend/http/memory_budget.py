"""A memory budget for large request bodies: many at once wait for each other instead of filling the memory, and what
one tenant has too much of waits while others go on.

Only bytes that have arrived are counted: a client that announces a large body and sends nothing holds nothing. Four
rules decide which holder may hold more:

  1. Of the holders of bytes, the first one never waits, so some request always gets on, however full the budget is.
  2. A tenant's holders have at most its share of the budget together, so that there is memory left for others. The
     first one of them that holds bytes is not bound by that: what it lacks it needs to come to its end.
  3. Whenever there is memory for those that wait, tenants take turns by bytes (`shared.process.fair_queue`). Those of
     one tenant come in the order in which they got their first bytes, then in which they asked.
  4. Nobody overtakes the holder whose turn it is, so long bodies get their turns too.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from itertools import chain
from typing import Final

from shared.process.fair_queue import FairQueue

QUANTUM_BYTES: Final = 256 * 1024
"""Bytes of a turn: what arrives of a body at a time."""


@dataclass(slots=True)
class _Holder:
    key: object
    tenant: str
    held: int = 0
    wanted: int = 0
    granted: asyncio.Future[None] | None = None

    @property
    def waits(self) -> bool:
        return self.granted is not None and not self.granted.done()


@dataclass(slots=True)
class _Tenant:
    """A tenant's holders: those of bytes by when they got the first ones, and those that have none yet."""

    holding: dict[object, _Holder] = field(default_factory=dict)
    asking: dict[object, _Holder] = field(default_factory=dict)
    held: int = 0

    def next_waiting(self) -> _Holder | None:
        return next((each for each in chain(self.holding.values(), self.asking.values()) if each.waits), None)

    def may_exceed(self, holder: _Holder) -> bool:
        return not self.holding or next(iter(self.holding.values())) is holder


class MemoryBudget:
    """Up to `bytes_max` bytes held by all holders together, and the share `tenant_share` of them by those of one
    tenant; more only for the first ones. A holder is of one tenant.
    """

    def __init__(self, bytes_max: int, tenant_share: float = 1.0) -> None:
        self._bytes_max = bytes_max
        self._tenant_bytes_max = int(tenant_share * bytes_max)
        self._total = 0
        self._holders: dict[object, _Holder] = {}
        self._holding: dict[object, _Holder] = {}  # those with bytes, by when they got the first ones
        self._tenants: dict[str, _Tenant] = {}
        self._turns: FairQueue[None] = FairQueue(QUANTUM_BYTES)  # an item for each wait, of whichever holder
        self._turn: tuple[str, float] | None = None  # the tenant whose holder is next, and what was charged for it

    @property
    def bytes(self) -> int:
        """Bytes held by all holders together."""
        return self._total

    def held(self, holder: object) -> int:
        """Bytes that `holder` holds."""
        found = self._holders.get(holder)
        return 0 if found is None else found.held

    async def acquire(self, holder: object, size: int, tenant: str = "") -> None:
        """Waits until `holder` may hold `size` bytes more, and counts them. `tenant` is the one whose body it is."""
        asking = self._holders.get(holder)
        if asking is None:
            asking = self._holders[holder] = _Holder(holder, tenant)
            self._tenants.setdefault(tenant, _Tenant()).asking[holder] = asking
        asking.wanted = size
        asking.granted = granted = asyncio.get_running_loop().create_future()
        self._turns.put(asking.tenant, size, None)
        self._serve()
        try:
            await granted
        except asyncio.CancelledError:
            self._serve()  # it may have been its turn
            raise

    def release(self, holder: object) -> None:
        """Gives back all that `holder` holds, and forgets what it waits for. A holder of nothing is allowed."""
        found = self._holders.pop(holder, None)
        if found is None:
            return
        self._total -= found.held
        tenant = self._tenants[found.tenant]
        tenant.held -= found.held
        for holders in (self._holding, tenant.holding, tenant.asking):
            holders.pop(holder, None)
        if not tenant.holding and not tenant.asking:
            del self._tenants[found.tenant]
        self._serve()

    def _serve(self) -> None:
        """Grants what may be granted now."""
        while True:
            first = next(iter(self._holding.values()), None)
            if first is not None and first.waits:
                self._grant(first)  # what its wait was charged is taken from the queue in its tenant's turn
            self._turn = self._turn or self._take_turn()
            if self._turn is None:
                return
            name, charged = self._turn
            tenant = self._tenants.get(name)
            waiting = None if tenant is None else tenant.next_waiting()
            if waiting is not None:
                if self._holding and self._total + waiting.wanted > self._bytes_max:
                    return
                self._turns.correct(name, charged, waiting.wanted)
                self._grant(waiting)
            self._turn = None

    def _take_turn(self) -> tuple[str, float] | None:
        taken = self._turns.take(self._may_serve)
        return None if taken is None else (taken.tenant, taken.cost)

    def _may_serve(self, name: str) -> bool:
        tenant = self._tenants.get(name)
        waiting = None if tenant is None else tenant.next_waiting()
        if tenant is None or waiting is None:
            return True  # its items are of waits that are over
        return tenant.may_exceed(waiting) or tenant.held + waiting.wanted <= self._tenant_bytes_max

    def _grant(self, holder: _Holder) -> None:
        assert holder.granted is not None
        holder.granted.set_result(None)
        holder.held += holder.wanted
        tenant = self._tenants[holder.tenant]
        tenant.held += holder.wanted
        if tenant.asking.pop(holder.key, None) is not None:
            tenant.holding[holder.key] = self._holding[holder.key] = holder
        self._total += holder.wanted
