"""How many calls to one address a frame waits for."""

from __future__ import annotations

from typing import Final

LATELY: Final = 8
"""Over about so many calls, and frames, it is averaged how fast they come, and how long they take."""

FLIGHT_MAX_S: Final = 0.02
"""A frame that takes longer says something about the calls in it, and nothing about the next ones."""


class Traffic:
    """How much there is to do at an address: averages over the last few calls and frames."""

    def __init__(self) -> None:
        self._came_s = float("-inf")
        self._apart_s = 1.0
        self._flight_s = 0.0

    def came(self, now_s: float) -> None:
        """A call."""
        self._apart_s += (min(1.0, now_s - self._came_s) - self._apart_s) / LATELY
        self._came_s = now_s

    def returned(self, took_s: float) -> None:
        """A frame."""
        self._flight_s += (min(FLIGHT_MAX_S, took_s) - self._flight_s) / LATELY

    @property
    def frame_calls(self) -> float:
        """Half of the calls that come while a frame is under way."""
        return self._flight_s / self._apart_s / 2
