"""How fast a request's body has to arrive: a client that stalls or trickles would keep the memory of what it has sent,
and others out of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

WINDOW_S: Final = 10.0
"""Time over which the rate is averaged, in seconds."""


@dataclass(slots=True)
class Arrival:
    """The arrival of one body since `began_s`, in time until `ends_s` and at `rate_min` bytes a second at least, on the
    average of each window; 0: at any rate. Times are those of one monotonic clock, in seconds.
    """

    began_s: float
    ends_s: float
    rate_min: int
    window_s: float = WINDOW_S
    _bytes: int = 0

    @property
    def due_s(self) -> float:
        """When the arrival has to be looked at again if nothing comes."""
        return min(self.began_s + self.window_s, self.ends_s) if self.rate_min else self.ends_s

    def came(self, size: int) -> None:
        """Counts bytes of the body that have arrived."""
        self._bytes += size

    def too_slow(self, now_s: float) -> bool:
        """Whether the body is too late, or came too slowly in the window that has ended by now; then the next window
        begins.
        """
        if now_s >= self.ends_s:
            return True
        passed_s = now_s - self.began_s
        if not self.rate_min or passed_s < self.window_s:
            return False
        slow = self._bytes < self.rate_min * passed_s
        self.began_s, self._bytes = now_s, 0
        return slow

    def resumed(self, waited_s: float) -> None:
        """The body was not read for so long, which is no fault of the client."""
        self.began_s += waited_s
