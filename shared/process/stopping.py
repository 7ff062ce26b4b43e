"""The longest time that a process takes to stop: what starts and stops processes has to give them that time.

```text
SIGTERM          + drain_timeout_s         + CLOSE_S              + EXIT_S
|-- draining ----|-- loops end, closing ---|-- whatever is left --|
                 `drain` is cancelled      what closes is         the process ends, and shows
                                           cancelled              where each thread was
```

A step may be cut short at each of these ends, which is logged. Every process may be killed at any moment, so nothing is
lost by it; but a killed process gives nothing back, and others wait until that has expired.
"""

from __future__ import annotations

from typing import Final

CLOSE_S: Final = 8.0
"""Longest time for ending the loops and closing what is open, in seconds."""

EXIT_S: Final = 1.0
"""Longest time for what is left when closing was cut short, in seconds; for the end of threads, say."""


def closed_after_s(drain_timeout_s: float) -> float:
    """Seconds from the signal until everything is closed, at most."""
    return drain_timeout_s + CLOSE_S


def ended_after_s(drain_timeout_s: float) -> float:
    """Seconds from the signal until the process has ended, at most."""
    return closed_after_s(drain_timeout_s) + EXIT_S
