"""Accounts: what each place uses of its rates and its concurrency, in one frontend."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Final

from frontend.admission.tenant_quotas import Place
from frontend.admission.token_bucket import TokenBucket
from shared.errors import RateLimited
from shared.tenancy.quotas import Quota

ACCOUNTS_MAX: Final = 20_000
"""Most places that are remembered. The ones that were used longest ago are forgotten, and begin anew."""
WAIT_S_MAX: Final = 0.25
"""Longest time for which a request waits for its turn, in seconds, because clients do not repeat what is refused."""
RETRY_S_MAX: Final = 3600

Rates = Mapping[Quota, float]


class Account:
    """The use of one place: a bucket per rate, and the requests that are worked on."""

    __slots__ = ("buckets", "running")

    def __init__(self) -> None:
        self.buckets: dict[Quota, TokenBucket] = {}
        self.running = 0

    def bucket(self, quota: Quota, rate: float, now_s: float) -> TokenBucket:
        """The bucket of a rate."""
        found = self.buckets.get(quota)
        if found is None:
            found = self.buckets[quota] = TokenBucket(rate, now_s)
        found.set_rate(rate, now_s)
        return found


class Accounts:
    """The accounts of all places. This process has a `share` of each rate: all frontends together keep to it."""

    def __init__(self) -> None:
        self._accounts: OrderedDict[Place, Account] = OrderedDict()
        self.share = 1.0

    def __len__(self) -> int:
        return len(self._accounts)

    def admit(
        self, places: Sequence[tuple[Place, Rates]], costs: Mapping[Quota, float], now_s: float
    ) -> tuple[float, list[Account]]:
        """Takes what a request is known to cost at each of its places; how long it has to wait before it goes on, in
        seconds, and the accounts in which it now counts as being worked on, until `done`. Raises RateLimited, and takes
        nothing, when it would wait too long or too many are worked on.
        """
        found = [(self._account(place), rates) for place, rates in places]
        for account, rates in found:
            if account.running >= self._concurrency(rates):
                raise too_many(1.0)
        taken = [
            (account.bucket(quota, rates[quota] * self.share, now_s), cost)
            for account, rates in found
            for quota, cost in costs.items()
            if quota in rates
        ]
        wait_s = max((bucket.wait_s(cost, now_s) for bucket, cost in taken), default=0.0)
        if wait_s > WAIT_S_MAX:
            raise too_many(wait_s)
        for bucket, cost in taken:
            bucket.take(cost, now_s)
        for account, _ in found:
            account.running += 1
        return wait_s, [account for account, _ in found]

    def charge(self, places: Sequence[tuple[Place, Rates]], costs: Mapping[Quota, float], now_s: float) -> None:
        """Takes what a request turned out to cost, whether or not it is there."""
        for place, rates in places:
            for quota, cost in costs.items():
                if quota in rates and cost:
                    self._account(place).bucket(quota, rates[quota] * self.share, now_s).take(cost, now_s)

    def require(self, places: Sequence[tuple[Place, Rates]], quota: Quota, now_s: float) -> None:
        """Raises RateLimited when the bucket of a rate is overdrawn at one of the places."""
        for place, rates in places:
            if quota in rates:
                wait_s = self._account(place).bucket(quota, rates[quota] * self.share, now_s).wait_s(0, now_s)
                if wait_s > WAIT_S_MAX:
                    raise too_many(wait_s)

    def done(self, accounts: Sequence[Account]) -> None:
        """A request is worked on no more."""
        for account in accounts:
            account.running -= 1

    def _concurrency(self, rates: Rates) -> float:
        most = rates.get(Quota.CONCURRENCY)
        if most is None:
            return math.inf
        return math.ceil(most * self.share) if most else 0

    def _account(self, place: Place) -> Account:
        account = self._accounts.get(place)
        if account is None:
            account = self._accounts[place] = Account()
            self._forget()
        else:
            self._accounts.move_to_end(place)
        return account

    def _forget(self) -> None:
        """Forgets the accounts that were used longest ago. One that requests are still counted in lives on in these,
        so that its place may have more of them at once for a moment.
        """
        while len(self._accounts) > ACCOUNTS_MAX:
            self._accounts.popitem(last=False)


def too_many(wait_s: float) -> RateLimited:
    """The refusal of a request that may come again in so many seconds."""
    return RateLimited("Too many requests; backoff and try again", max(1, math.ceil(min(wait_s, RETRY_S_MAX))))
