"""Deadlines that share a timer are those of `asyncio.timeout`."""

from __future__ import annotations

import asyncio
import gc

import pytest

from shared.redis.deadline import _BY_LOOP, Deadline


async def test_what_takes_too_long_ends_with_a_timeout_and_the_task_goes_on() -> None:
    with pytest.raises(TimeoutError), Deadline(0.01):
        await asyncio.Event().wait()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    await asyncio.sleep(0)


async def test_each_of_many_has_its_own_deadline() -> None:
    async def wait(limit_s: float, event: asyncio.Event) -> str:
        try:
            with Deadline(limit_s):
                await event.wait()
        except TimeoutError:
            return "late"
        return "in time"

    never, soon = asyncio.Event(), asyncio.Event()
    tasks = [asyncio.create_task(wait(0.01, never)) for _ in range(5)]
    tasks += [asyncio.create_task(wait(60.0, soon)) for _ in range(5)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    soon.set()
    assert await asyncio.gather(*tasks) == ["late"] * 5 + ["in time"] * 5


async def test_who_is_cancelled_by_somebody_else_stays_cancelled() -> None:
    async def wait() -> None:
        with Deadline(60.0):
            await asyncio.Event().wait()

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_other_errors_pass() -> None:
    with pytest.raises(OSError, match="as it is"), Deadline(60.0):
        raise OSError("as it is")


@pytest.mark.parametrize(("outer_s", "inner_s"), [(0.01, 60.0), (60.0, 0.01)])
async def test_inside_a_timeout_the_earlier_one_ends_it(outer_s: float, inner_s: float) -> None:
    outer = asyncio.timeout(outer_s)

    async def inside() -> None:
        async with outer:
            with Deadline(inner_s):
                await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await inside()
    assert outer.expired() == (outer_s < inner_s)


def test_nothing_is_kept_of_a_loop_that_is_over() -> None:
    async def pass_() -> None:
        with Deadline(60.0):
            await asyncio.sleep(0)

    asyncio.run(pass_())
    gc.collect()
    kept = len(_BY_LOOP)
    asyncio.run(pass_())
    gc.collect()
    assert len(_BY_LOOP) <= kept
