"""The loop that repeats a step of the log service for ever, whatever fails."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import Counter

from shared.errors import Backoff, Corrupt, Unavailable
from shared.process.clock import Clock
from shared.process.concurrency import cancellations, require_uncancelled
from shared.process.telemetry import get_logger

log = get_logger(__name__)

FAILURES: Final = Counter("polychrome_logservice_failures_total", "Steps that failed and will be repeated.", ["loop"])

REST_RATIO: Final = 4
"""A step that took t seconds rests for at least 4 t: with very many shards the log service must not crowd Redis."""
SWEEP_REST_RATIO: Final = 20
"""A sweep over all collections that took t seconds rests for at least 20 t: it only finds what processes left that
died.
"""
PAUSE_AFTER_FAILURE_S: Final = 1.0


async def every(
    name: str,
    period_s: float,
    step: Callable[[], Awaitable[object]],
    clock: Clock,
    rest_ratio: float = REST_RATIO,
) -> None:
    """Repeats `step` every `period_s` seconds, or more slowly when it takes long: a step that took t seconds is
    followed by a pause of at least `rest_ratio` * t.

    A step that raises Unavailable, Backoff or Corrupt is logged, counted under the loop's `name`, and repeated.
    Anything else is a defect, and is raised.
    """
    while True:
        before = cancellations()
        began = clock.monotonic()
        pause_s = period_s
        try:
            await step()
        except (Unavailable, Backoff) as error:
            require_uncancelled(before)
            FAILURES.labels(name).inc()
            log.warning("step_postponed", loop=name, message=error.message)
            pause_s = max(period_s, PAUSE_AFTER_FAILURE_S)
        except Corrupt:
            FAILURES.labels(name).inc()
            log.exception("step_refused", loop=name)
            pause_s = max(period_s, PAUSE_AFTER_FAILURE_S)
        await clock.sleep(max(pause_s, rest_ratio * (clock.monotonic() - began)))
