"""The named steps of jobs: what the log shows at debug level, and where fault tests stop a compactor."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from shared.process.clock import Clock
from shared.process.telemetry import get_logger

log = get_logger(__name__)


class Step(enum.StrEnum):
    """The steps of a compaction. A step is reached when what it says is done."""

    CLAIMED = "claimed"
    READ = "read"
    APPLIED = "folded"  # the name in metrics and settings
    BUILT = "built"
    UPLOADED = "uploaded"
    CREATED = "created"
    COMMITTED = "committed"


class RebuildStep(enum.StrEnum):
    """The steps of a rebuild. As a collection's and not a shard's, they come with the shard number -1."""

    INITIALIZED = "initialized"
    COPIED = "copied"
    APPENDS_STOPPED = "fenced"
    SWITCHED = "switched"


AnyStep = Step | RebuildStep


@dataclass(frozen=True, slots=True)
class Pause:
    """A pause of `seconds` at a step."""

    step: AnyStep
    seconds: float


def parse_pause(text: str) -> Pause | None:
    """The pause that a setting asks for, as `<step>:<seconds>`; None when that is empty. Raises ValueError."""
    if not text:
        return None
    name, _, seconds = text.partition(":")
    steps: dict[str, AnyStep] = {step.value: step for step in (*Step, *RebuildStep)}
    if name not in steps:
        raise ValueError(f"expected <step>:<seconds> with a step of {', '.join(steps)}")
    return Pause(steps[name], float(seconds))


class Checkpoints:
    """Notified of every step of every job, in the middle of which it may pause."""

    def __init__(self, clock: Clock, pause: Pause | None = None) -> None:
        self._clock = clock
        self._pause = pause

    async def reached(self, step: AnyStep, collection: str, shard: int) -> None:
        """A job has done what the step says."""
        log.debug("step", step=str(step), collection=collection, shard=shard)
        if self._pause is not None and self._pause.step is step:
            await self._clock.sleep(self._pause.seconds)
