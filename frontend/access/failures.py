"""Delays after failed attempts to authenticate, by address: guessing passwords must be slow. Pure but for the clock.

The first few failures of an address cost nothing, each further one doubles the delay up to a limit, and failures are
forgotten by half every `HALF_LIFE_S`. An IPv6 sender owns a whole network, so that counts as one address.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from typing import Final, NamedTuple

from shared.process.clock import Clock

FREE: Final = 5
"""Failures of an address that are not delayed."""
DELAY_FIRST_S: Final = 0.1
DELAY_MAX_S: Final = 5.0
HALF_LIFE_S: Final = 30.0
ADDRESSES_MAX: Final = 10_000
"""Addresses that are remembered; the one that failed longest ago is forgotten first."""


class _Failed(NamedTuple):
    number: float
    at_s: float


class Failures:
    """The failures of the last minutes."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, _Failed] = OrderedDict()

    def note(self, address: str | None) -> None:
        """An attempt from this address has failed."""
        network = network_of(address)
        now_s = self._clock.monotonic()
        self._failed[network] = _Failed(self._count(network, now_s) + 1, now_s)
        self._failed.move_to_end(network)
        while len(self._failed) > ADDRESSES_MAX:
            self._failed.popitem(last=False)

    def delay_s(self, address: str | None) -> float:
        """The time for which the next attempt from this address, or the answer to the last, is held back."""
        beyond = self._count(network_of(address), self._clock.monotonic()) - FREE
        return 0.0 if beyond <= 0 else min(DELAY_FIRST_S * 2.0 ** min(beyond - 1, 30), DELAY_MAX_S)

    def _count(self, network: str, now_s: float) -> float:
        failed = self._failed.get(network)
        return 0.0 if failed is None else failed.number * 0.5 ** ((now_s - failed.at_s) / HALF_LIFE_S)


def network_of(address: str | None) -> str:
    """The network that a sender is taken for: an IPv4 address itself, the first 64 bits of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address((address or "").partition("%")[0])
    except ValueError:
        return address or ""
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, 64), strict=False))
