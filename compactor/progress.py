"""The steps of one compaction: timed, told to the checkpoints, and each an occasion to give up."""

from __future__ import annotations

from typing import Final

from prometheus_client import Histogram

from compactor.cancellation import CancellationToken
from compactor.checkpoints import Checkpoints, Step
from shared.process.clock import Clock

STEP_SECONDS: Final = Histogram(
    "polychrome_compactor_step_seconds",
    "Time to reach a step from the one before.",
    ["step"],
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)

FINISHING: Final = (Step.CREATED, Step.COMMITTED)
"""Steps after which nothing is given up: finishing is quicker than having another compactor finish."""


class Progress:
    """The compaction of one shard, as far as it has come."""

    def __init__(
        self, checkpoints: Checkpoints, clock: Clock, token: CancellationToken, collection: str, shard: int
    ) -> None:
        self.collection = collection
        self.shard = shard
        self.token = token
        self._checkpoints = checkpoints
        self._clock = clock
        self._since = clock.monotonic()

    async def reached(self, step: Step) -> None:
        """Notes that what the step says is done. Raises Abandoned when the job was given up."""
        STEP_SECONDS.labels(step).observe(self._clock.monotonic() - self._since)
        await self._checkpoints.reached(step, self.collection, self.shard)
        self._since = self._clock.monotonic()
        if step not in FINISHING:
            self.token.check()
