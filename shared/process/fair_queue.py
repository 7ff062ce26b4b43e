"""A queue that serves tenants in turn by what their work costs, not by how much of it they have sent.

It is deficit round robin (Shreedhar and Varghese, «Efficient fair queuing using deficit round robin», 1995). Each
tenant has a queue and an account. Tenants take turns; whose first item costs more than is in the account gets QUANTUM
into it, and the turn goes on. So tenants that always have items waiting get the same share of what is served, give or
take one item and a quantum, be their items small or large. Two things are added:

  * Costs are estimates. What an item turned out to cost is charged afterwards (`correct`): an account may be overdrawn
    by that, and its tenant waits until the turns have made up for it. It does not get out of that by having nothing in
    the queue for a moment: the debt of a tenant without items shrinks by a quantum a round and is kept until it is
    gone. Credit is not kept: who sends nothing saves nothing up.
  * Rounds in which nobody could be served are done at once, so taking an item costs the same however large it is, and
    a tenant that is alone is served without delay.

Pure; callers lock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Final, Generic, NamedTuple, TypeVar

Item = TypeVar("Item")

DEBTORS_MAX: Final = 1024
"""Tenants without items whose debts are remembered; beyond, the oldest debt is forgotten."""


class ServedItem(NamedTuple, Generic[Item]):
    """An item that is served, with its tenant and the cost that was estimated."""

    tenant: str
    cost: float
    item: Item


class _Account(Generic[Item]):
    __slots__ = ("balance", "items")

    def __init__(self, balance: float) -> None:
        self.balance = balance
        self.items: deque[tuple[float, Item]] = deque()


def _anybody(_tenant: str) -> bool:
    return True


class FairQueue(Generic[Item]):
    """Items of many tenants. Costs are of any unit, and `quantum` is of the same: about that of a small item."""

    def __init__(self, quantum: float) -> None:
        self._quantum = quantum
        self._accounts: dict[str, _Account[Item]] = {}  # of tenants with items, the one whose turn it is first
        self._debts: dict[str, tuple[float, float]] = {}  # of tenants without: debt, and the round of that time
        self._rounds = 0.0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, tenant: str, cost: float, item: Item) -> None:
        """The item waits from now on, behind those of its tenant."""
        account = self._accounts.get(tenant)
        if account is None:
            debt = self._take_debt(tenant) if self._debts else 0.0
            account = self._accounts[tenant] = _Account(self._quantum - debt)  # its first turn's, which is the next
        account.items.append((cost, item))
        self._count += 1

    def take(self, may_serve: Callable[[str], bool] = _anybody) -> ServedItem[Item] | None:
        """The next item of those tenants that may be served now; None when they have none."""
        skipped = 0
        while skipped < len(self._accounts):
            tenant, account = next(iter(self._accounts.items()))
            cost, item = account.items[0]
            if may_serve(tenant):
                if cost <= account.balance:
                    return self._serve(tenant, account, cost, item)
                account.balance += self._quantum
                self._rounds += 1 / len(self._accounts)
            skipped += 1
            del self._accounts[tenant]
            self._accounts[tenant] = account
            if skipped == len(self._accounts) and self._skip_rounds(may_serve):
                skipped = 0
        return None

    def correct(self, tenant: str, cost: float, measured: float) -> None:
        """An item that was taken, with `cost` as its estimate, has turned out to cost `measured`."""
        account = self._accounts.get(tenant)
        if account is not None:
            account.balance -= measured - cost
            return
        debt = self._take_debt(tenant) + measured - cost
        if debt > 0:
            self._owe(tenant, debt)

    def _serve(self, tenant: str, account: _Account[Item], cost: float, item: Item) -> ServedItem[Item]:
        account.items.popleft()
        account.balance -= cost
        self._count -= 1
        if not account.items:
            del self._accounts[tenant]
            if account.balance < 0:
                self._owe(tenant, -account.balance)
        return ServedItem(tenant, cost, item)

    def _skip_rounds(self, may_serve: Callable[[str], bool]) -> bool:
        """Gives everybody that may be served what the first of them lacks, less a round; False when there is nobody."""
        waiting = [account for tenant, account in self._accounts.items() if may_serve(tenant)]
        if not waiting:
            return False
        lacking = min(account.items[0][0] - account.balance for account in waiting)
        rounds = math.ceil(lacking / self._quantum) - 1
        if rounds > 0:
            self._rounds += rounds
            for account in waiting:
                account.balance += rounds * self._quantum
        return True

    def _owe(self, tenant: str, debt: float) -> None:
        self._debts[tenant] = (debt, self._rounds)
        if len(self._debts) > DEBTORS_MAX:
            del self._debts[next(iter(self._debts))]

    def _take_debt(self, tenant: str) -> float:
        """Gives the debt that is left of the tenant, and forgets it."""
        debt, since = self._debts.pop(tenant, (0.0, self._rounds))
        return max(0.0, debt - (self._rounds - since) * self._quantum)
