"""Several calls at once, none of which is left running when one fails or the caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


async def together(calls: Sequence[Awaitable[Result]]) -> list[Result]:
    """The results of all calls, in the order of the calls. The first failure is raised; no call is left running: the
    others are cancelled then, and waited for.
    """
    if len(calls) == 1:
        return [await calls[0]]
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return await asyncio.gather(*tasks)
    finally:
        running = [task for task in tasks if not task.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)


async def map_concurrently(
    work: Callable[[Item], Awaitable[Result]], items: Iterable[Item], *, at_once: int
) -> list[Result]:
    """The results of `work` on every item, in the order of the items, `at_once` of which are under way at a time. The
    first failure is raised, as by `together`. However many items there are, only so many tasks are made.
    """
    results: dict[int, Result] = {}
    numbered = enumerate(items)

    async def take_items() -> None:
        for number, item in numbered:
            results[number] = await work(item)

    await together([take_items() for _ in range(at_once)])
    return [results[number] for number in range(len(results))]


def cancellations() -> int:
    """Counts how often the present task was asked to end."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def require_uncancelled(before: int) -> None:
    """For whoever handles an error and goes on: raises CancelledError when the task was asked to end since `before`,
    what `cancellations` was when the work began. A library that fails while it cleans up after a cancellation raises
    its own error in the place of CancelledError, and a task that goes on then never ends.

    No task group may have failed in between: Python 3.11 leaves the count higher by one.
    """
    if cancellations() > before:
        raise asyncio.CancelledError
