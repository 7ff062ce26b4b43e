"""The number of calls to one address that are sent together in a frame: about half of those that come while a frame is
in flight.

```text
calls per frame  =  time from a frame's sending to its first answer  /  time from one call to the next  /  2
```

Both times are moving averages. So at busy times there are about two frames in flight, one being answered while the
other fills, and a caller that asks one thing after the other never waits. Pure.
"""

from __future__ import annotations

from typing import Final

AVERAGED_OVER: Final = 8
"""Averaging window: about so many calls, or frames."""

FRAME_S_MAX: Final = 0.02
"""A frame that takes longer, in seconds, says something about its calls, and nothing about the next ones."""

APART_S_MAX: Final = 1.0
"""Calls that are further apart, in seconds, have nothing to do with each other."""


class BatchSize:
    """The size of the next frame to one address."""

    def __init__(self) -> None:
        self._last_call_s = float("-inf")
        self._apart_s = APART_S_MAX
        self._frame_s = 0.0

    def call_came(self, now_s: float) -> None:
        """A call is to be sent."""
        self._apart_s += (min(APART_S_MAX, now_s - self._last_call_s) - self._apart_s) / AVERAGED_OVER
        self._last_call_s = now_s

    def frame_answered(self, took_s: float) -> None:
        """The first answer to a frame has come, so long after it was sent."""
        self._frame_s += (min(FRAME_S_MAX, took_s) - self._frame_s) / AVERAGED_OVER

    @property
    def calls(self) -> float:
        """The number of calls that a frame should have; 1 or less: the first one is sent at once."""
        return self._frame_s / self._apart_s / 2
