"""Steps that are repeated for ever, and what their failures do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from prometheus_client import Counter

from shared.errors import Backoff, Corrupt, Unavailable
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

log = get_logger(__name__)

FAILURES: Final = Counter("polychrome_logservice_failures", "Steps that failed and will be repeated.", ["loop"])

REST_RATIO: Final = 4
"""A step that took t seconds rests for at least 4 t: with very many shards the log service must not crowd Redis."""
SWEEP_REST_RATIO: Final = 20
"""Seconds between two looks at all collections, which only find what processes that died left."""
PAUSE_AFTER_FAILURE_S: Final = 1.0


async def every(
    name: str,
    period_s: float,
    step: Callable[[], Awaitable[object]],
    clock: Clock,
    rest_ratio: float = REST_RATIO,
) -> None:
    """Repeats `step`. What is away is waited for; what is corrupt is reported, and doesn't stop the rest."""
    while True:
        began = clock.monotonic()
        pause_s = period_s
        try:
            await step()
        except (Unavailable, Backoff) as error:
            FAILURES.labels(name).inc()
            log.warning("step_postponed", loop=name, message=error.message)
            pause_s = max(period_s, PAUSE_AFTER_FAILURE_S)
        except Corrupt:
            FAILURES.labels(name).inc()
            log.exception("step_refused", loop=name)
            pause_s = max(period_s, PAUSE_AFTER_FAILURE_S)
        await clock.sleep(max(pause_s, rest_ratio * (clock.monotonic() - began)))
