"""The named steps of a job: what the log shows at debug level, and where fault tests stop a compactor."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from shared.clock import Clock
from shared.telemetry import get_logger

log = get_logger(__name__)


class Step(enum.StrEnum):
    """A step is reached when what it says is done."""

    CLAIMED = "claimed"
    READ = "read"
    FOLDED = "folded"
    BUILT = "built"
    UPLOADED = "uploaded"
    CREATED = "created"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True)
class Pause:
    """How long to stop at a step."""

    step: Step
    seconds: float


def parse_pause(text: str) -> Pause | None:
    """`<step>:<seconds>`; nothing when empty."""
    if not text:
        return None
    name, _, seconds = text.partition(":")
    if name not in set(Step):
        raise ValueError(f"expected <step>:<seconds> with a step of {', '.join(Step)}")
    return Pause(Step(name), float(seconds))


class Checkpoints:
    """Told of every step of every job."""

    def __init__(self, clock: Clock, pause: Pause | None = None) -> None:
        self._clock = clock
        self._pause = pause

    async def reached(self, step: Step, collection: str, shard: int) -> None:
        log.debug("step", step=str(step), collection=collection, shard=shard)
        if self._pause is not None and self._pause.step is step:
            await self._clock.sleep(self._pause.seconds)
