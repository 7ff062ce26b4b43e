"""Every call gets the outcome of a run that began after it, in as few runs as that takes, whichever are cancelled."""

from __future__ import annotations

import asyncio
import random

import pytest

from shared.process.coalesced import Coalesced


class Runs:
    """An operation that a test holds; its outcome is its number."""

    def __init__(self) -> None:
        self.begun = 0
        self.gates: dict[int, asyncio.Event] = {}
        self.failing: set[int] = set()
        self.coalesced = Coalesced(self._run)

    async def _run(self) -> int:
        self.begun += 1
        number = self.begun
        await self.gates.setdefault(number, asyncio.Event()).wait()
        if number in self.failing:
            raise OSError(number)
        return number

    def ask(self) -> asyncio.Task[int]:
        return asyncio.create_task(self.coalesced.run())

    def end(self, number: int) -> None:
        self.gates.setdefault(number, asyncio.Event()).set()


async def _turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_calls_in_the_same_turn_of_the_loop_share_a_run() -> None:
    runs = Runs()
    runs.end(1)
    assert await asyncio.gather(*(runs.ask() for _ in range(10))) == [1] * 10


async def test_calls_during_a_run_share_the_next() -> None:
    runs = Runs()
    first = runs.ask()
    await _turns()
    later = [runs.ask() for _ in range(10)]
    await _turns()
    assert runs.begun == 1
    runs.end(1)
    runs.end(2)
    assert await first == 1
    assert await asyncio.gather(*later) == [2] * 10
    runs.end(3)
    assert await runs.ask() == 3


async def test_the_failure_of_a_run_reaches_all_calls_that_share_it_and_no_other() -> None:
    runs = Runs()
    runs.failing = {2}
    first = runs.ask()
    await _turns()
    sharing = [runs.ask() for _ in range(3)]
    runs.end(1)
    await _turns()
    later = runs.ask()
    runs.end(2)
    runs.end(3)
    outcomes = await asyncio.gather(first, *sharing, later, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [int, OSError, OSError, OSError, int]


async def test_a_run_that_loses_its_leader_is_begun_again_for_the_others() -> None:
    runs = Runs()
    leader, other = runs.ask(), runs.ask()
    await _turns()
    leader.cancel()
    await _turns()
    assert runs.begun == 2
    runs.end(2)
    assert await other == 2
    assert leader.cancelled()


async def test_a_leader_cancelled_before_it_began_hands_on() -> None:
    runs = Runs()

    async def lead_and_cancel() -> None:
        await runs.coalesced.run()
        chosen.cancel()  # in the same turn it was told to begin the next run

    first = asyncio.create_task(lead_and_cancel())
    await _turns()
    chosen, other = runs.ask(), runs.ask()
    await _turns()
    runs.end(1)
    runs.end(2)
    runs.end(3)
    await first
    assert await other == 2
    assert chosen.cancelled()
    assert await runs.ask() == 3


async def test_calls_that_wait_are_cancelled_and_the_run_in_progress_goes_on() -> None:
    runs = Runs()
    first = runs.ask()
    await _turns()
    waiting = runs.ask()
    await _turns()
    runs.coalesced.cancel_waiting()
    runs.end(1)
    assert await first == 1
    with pytest.raises(asyncio.CancelledError):
        await waiting


@pytest.mark.parametrize("seed", range(20))
async def test_whichever_calls_are_cancelled_and_runs_fail_the_others_are_answered_in_order(seed: int) -> None:
    random_ = random.Random(seed)
    begun = 0

    async def operation() -> int:
        nonlocal begun
        begun += 1
        number = begun
        for _ in range(random_.randrange(4)):
            await asyncio.sleep(0)
        if random_.random() < 0.2:
            raise OSError(number)
        return number

    coalesced = Coalesced(operation)
    answered = 0

    async def ask() -> None:
        nonlocal answered
        before = begun
        try:
            number = await coalesced.run()
        except OSError as error:
            number = error.args[0]
        assert number > before, "a run that had begun before"
        answered += 1

    tasks: list[asyncio.Task[None]] = []
    for _ in range(300):
        tasks.append(asyncio.create_task(ask()))
        if random_.random() < 0.3:
            random_.choice(tasks).cancel()
        if random_.random() < 0.6:
            await asyncio.sleep(0)
    async with asyncio.timeout(5):
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert answered + sum(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes) == len(tasks)
