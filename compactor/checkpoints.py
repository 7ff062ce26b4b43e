"""The named steps of jobs: what the log shows at debug level, and where fault tests stop a compactor."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from shared.process.clock import Clock
from shared.process.telemetry import get_logger

log = get_logger(__name__)


class Step(enum.StrEnum):
    """Of a compaction. A step is reached when what it says is done."""

    CLAIMED = "claimed"
    READ = "read"
    FOLDED = "folded"
    BUILT = "built"
    UPLOADED = "uploaded"
    CREATED = "created"
    COMMITTED = "committed"


class RebuildStep(enum.StrEnum):
    """Of a rebuild, whose shard is said to be -1."""

    SOWN = "sown"
    COPIED = "copied"
    FENCED = "fenced"
    SWITCHED = "switched"


AnyStep = Step | RebuildStep


@dataclass(frozen=True, slots=True)
class Pause:
    """How long to stop at a step."""

    step: AnyStep
    seconds: float


def parse_pause(text: str) -> Pause | None:
    """`<step>:<seconds>`; nothing when empty."""
    if not text:
        return None
    name, _, seconds = text.partition(":")
    steps: dict[str, AnyStep] = {step.value: step for step in (*Step, *RebuildStep)}
    if name not in steps:
        raise ValueError(f"expected <step>:<seconds> with a step of {', '.join(steps)}")
    return Pause(steps[name], float(seconds))


class Checkpoints:
    """Told of every step of every job."""

    def __init__(self, clock: Clock, pause: Pause | None = None) -> None:
        self._clock = clock
        self._pause = pause

    async def reached(self, step: AnyStep, collection: str, shard: int) -> None:
        log.debug("step", step=str(step), collection=collection, shard=shard)
        if self._pause is not None and self._pause.step is step:
            await self._clock.sleep(self._pause.seconds)
