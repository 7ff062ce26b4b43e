"""Work that goes on to its end although its caller is cancelled."""

from __future__ import annotations

import asyncio
import threading

import pytest

from shared.process.shielding import run_to_end


class Work:
    """Waits until it is let go."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.begun = asyncio.Event()
        self.go_on = asyncio.Event()
        self.ended = False
        self.cancelled = False
        self._failure = failure

    async def __call__(self) -> str:
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.ended = True
        if self._failure:
            raise self._failure
        return "done"


async def test_the_result_or_the_error_of_the_work_comes_back() -> None:
    work, fails = Work(), Work(ValueError("no"))
    for each in (work, fails):
        each.go_on.set()
    assert await run_to_end(work()) == "done"
    with pytest.raises(ValueError, match="no"):
        await run_to_end(fails())


@pytest.mark.parametrize("failure", [None, ValueError("no")])
async def test_however_often_the_caller_is_cancelled_it_waits_for_the_end_and_then_is_cancelled(
    failure: Exception | None,
) -> None:
    work, told = Work(failure), list[int]()
    caller = asyncio.create_task(run_to_end(work(), on_cancel=lambda: told.append(1)))
    await work.begun.wait()
    for times in (1, 2, 3):
        caller.cancel()
        await asyncio.wait([caller], timeout=0.01)
        assert not caller.done()
        assert len(told) == times
    work.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert work.ended
    assert not work.cancelled


async def test_what_takes_too_long_is_cancelled() -> None:
    work = Work()
    with pytest.raises(TimeoutError):
        await run_to_end(work(), deadline_s=0.01)
    assert work.cancelled


async def test_a_cancelled_caller_does_not_wait_beyond_the_deadline() -> None:
    work = Work()
    caller = asyncio.create_task(run_to_end(work(), deadline_s=0.05))
    await work.begun.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert work.cancelled


async def test_a_timeout_around_it_still_is_one() -> None:
    work = Work()
    asyncio.get_running_loop().call_later(0.05, work.go_on.set)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await run_to_end(work())
    assert work.ended


async def test_a_thread_is_waited_for() -> None:
    stop, ended = threading.Event(), threading.Event()

    def busy() -> None:
        stop.wait()
        ended.set()

    caller = asyncio.create_task(run_to_end(asyncio.to_thread(busy), on_cancel=stop.set))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended.is_set()
