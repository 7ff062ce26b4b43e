"""A task that is cancelled ends, also when redis-py raises an error of its own in the place of the cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from redis.exceptions import TimeoutError as ClosingTimeout

from shared.redis.client import retry_idempotent, translated_errors


async def fails_while_it_is_cancelled() -> None:
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        raise ClosingTimeout("Timed out closing connection") from None


async def retried() -> None:
    await retry_idempotent(fails_while_it_is_cancelled, writes=False)


async def translated() -> None:
    with translated_errors():
        await fails_while_it_is_cancelled()


@pytest.mark.parametrize("work", [retried, translated])
async def test_a_cancelled_task_ends_although_closing_its_connection_fails(
    work: Callable[[], Coroutine[Any, Any, None]],
) -> None:
    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 2)


async def test_work_within_the_end_of_a_cancelled_task_is_repeated_all_the_same() -> None:
    attempts: list[int] = []

    async def second_try() -> str:
        attempts.append(1)
        if len(attempts) == 1:
            raise ConnectionError
        return "released"

    async def work() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return await retry_idempotent(second_try, writes=False)
        return ""

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    assert await task == "released"


async def test_an_attempt_that_outlives_its_deadline_fails_as_unavailable() -> None:
    with pytest.raises(Exception, match="did not answer in time"):
        await retry_idempotent(fails_while_it_is_cancelled, writes=False, deadline_s=0.05)
