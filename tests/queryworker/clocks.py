"""A clock that tests move."""

from shared.process.clock import SystemClock


class StillClock(SystemClock):
    """Stands until it is moved."""

    time_s = 100.0

    def monotonic(self) -> float:
        return self.time_s
