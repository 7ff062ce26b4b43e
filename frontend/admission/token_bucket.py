"""A token bucket: how much of something may be used per second, with some in reserve. Pure."""

from __future__ import annotations

from typing import Final

BURST_S: Final = 2.0
"""A bucket that was not used for a while holds what its rate gives in so many seconds, and one token at least."""


class TokenBucket:
    """Fills by `rate` tokens a second. It may be overdrawn, by what turns out to cost more than was known: then nothing
    is to be had until that is made up for. Times are those of one monotonic clock, in seconds.
    """

    __slots__ = ("_burst", "_level", "_rate", "_since_s")

    def __init__(self, rate: float, now_s: float) -> None:
        self._rate = rate
        self._burst = self._level = _burst(rate)
        self._since_s = now_s

    def set_rate(self, rate: float, now_s: float) -> None:
        """Another rate from now on; what is in the bucket stays, as far as it may hold that."""
        if rate != self._rate:
            self._fill(now_s)
            self._rate, self._burst = rate, _burst(rate)
            self._level = min(self._level, self._burst)

    def wait_s(self, tokens: float, now_s: float) -> float:
        """Seconds until so many tokens are there, or the bucket is full; infinity when none ever come."""
        self._fill(now_s)
        missing = min(tokens, self._burst) - self._level
        if not self._rate:
            return float("inf")
        return max(0.0, missing / self._rate)

    def take(self, tokens: float, now_s: float) -> None:
        """Takes tokens, whether or not they are there."""
        self._fill(now_s)
        self._level -= tokens

    def _fill(self, now_s: float) -> None:
        if now_s > self._since_s:
            self._level = min(self._burst, self._level + self._rate * (now_s - self._since_s))
            self._since_s = now_s


def _burst(rate: float) -> float:
    return max(1.0, rate * BURST_S)
