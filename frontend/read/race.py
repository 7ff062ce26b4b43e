"""A call to the workers of a shard, in the order of their rank, until one of them answers.

```text
the worker asked ..                  then
fails                                the next one is asked in its place (fail-over)
is silent and listed no more         the next one is asked beside it (fail-over): it may be cut off or stopped
dies with the call in flight         the next one is asked, once, if the call is not costly: it may have died of it
finds the stored data damaged        the next one is asked, once: the file on that worker's disk may be what is damaged
is silent for `hedge_after_s`        the next one is asked beside it if the call is not costly and the budget
                                     allows it (hedge); otherwise the question comes up again as long after
```

A worker is silent while its answer, or the first chunk of it, is not there. The first answer wins; the other call is
given up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from prometheus_client import Counter

from frontend.read.candidates import FAILOVERS, Candidates
from frontend.read.hedging import HedgeBudget, costly
from frontend.read.worker_losses import WorkerLosses
from shared.errors import Corrupt, DeadlineExceeded, Unavailable, WrongWorker
from shared.process.telemetry import get_logger
from shared.rpc.chunks import Answer, discard
from shared.rpc.query_worker_methods import ReadRequest

if TYPE_CHECKING:
    from shared.cluster.membership import Member
    from shared.process.clock import Clock

Begun = TypeVar("Begun", memoryview, Answer)

log = get_logger(__name__)

ANOTHER_MAY_ANSWER: Final = (Unavailable, WrongWorker, DeadlineExceeded)
"""Failures of one worker that say nothing about what another would answer."""

HEDGES = Counter(
    "polychrome_frontend_hedges_total",
    "Slow calls for which another worker was asked as well (sent), or was not (over_budget, costly).",
    ["outcome"],
)


class Race(Generic[Begun]):
    """A call of `request` to `workers`, at least one; `begin` makes it at one of them."""

    def __init__(
        self,
        workers: Sequence[Member],
        request: ReadRequest,
        begin: Callable[[Member], asyncio.Future[Begun]],
        candidates: Candidates,
        budget: HedgeBudget,
        losses: WorkerLosses,
        clock: Clock,
    ) -> None:
        self._request = request
        self._begin: Callable[[Member], asyncio.Future[Begun]] = begin
        self._candidates = candidates
        self._budget = budget
        self._losses = losses
        self._clock = clock
        self._waiting = list(workers)
        self._running: dict[asyncio.Future[Begun], Member] = {}
        self._refused = False
        self._damaged: Corrupt | None = None
        """The answer of a worker that has found the stored data damaged."""

    async def run(self, hedge_after_s: float) -> Begun:
        """The first answer. Raises at once what another worker would answer as well, NotRepeated as `WorkerLosses`
        says, Corrupt when two found the stored
        data damaged, or one and no other answered; else the last failure when all workers failed.
        """
        self._budget.count_call(self._clock.monotonic())
        self._ask(self._waiting[0])
        try:
            while True:
                slow_s = hedge_after_s if self._waiting else None
                done, _ = await asyncio.wait(self._running, timeout=slow_s, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    self._ask_beside_silent()
                    continue
                answer = self._first_answer(done)
                if answer is not None:
                    return answer
        finally:
            for call in self._running:
                discard(call)

    def _ask(self, worker: Member) -> None:
        self._waiting.remove(worker)
        self._running[self._begin(worker)] = worker

    def _first_answer(self, done: set[asyncio.Future[Begun]]) -> Begun | None:
        """None when these calls failed and others are running in their place. Raises as `run`."""
        failure: Exception | None = None
        for call in done:
            worker = self._running.pop(call)
            try:
                return call.result()
            except ANOTHER_MAY_ANSWER as error:
                self._candidates.distrust(worker, error)
                self._losses.note(error)
                failure = error
            except Corrupt as error:
                if self._damaged is not None:
                    raise
                self._damaged = failure = error
                FAILOVERS.labels(error.code).inc()
                log.warning("damaged_at_worker", worker=worker.id, message=error.message)
        if self._waiting:
            self._ask(self._waiting[0])
        elif not self._running and failure is not None:
            raise self._damaged or failure
        return None

    def _ask_beside_silent(self) -> None:
        """Asks another worker, if there is one that is alive, when all that were asked are gone, or for a hedge."""
        following = next((worker for worker in self._waiting if self._candidates.listed(worker)), None)
        if following is None:
            return
        if not any(self._candidates.listed(worker) for worker in self._running.values()):
            FAILOVERS.labels("gone").inc()
            self._ask(following)
        elif len(self._running) == 1 and self._may_hedge():
            self._ask(following)

    def _may_hedge(self) -> bool:
        """Whether the budget allows it now. A call that is refused is counted once, however often it tries."""
        is_costly = costly(self._request)
        if not is_costly and self._budget.take(self._clock.monotonic()):
            HEDGES.labels("sent").inc()
            FAILOVERS.labels("slow").inc()
            return True
        if not self._refused:
            HEDGES.labels("costly" if is_costly else "over_budget").inc()
            self._refused = True
        return False
