"""Concurrency within the event loop: heavy work leaves it for a thread, several calls are made at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, ParamSpec, TypeVar

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

IN_THREAD_BYTES_MIN: Final = 256 * 1024
"""Work on this many bytes or more leaves the event loop; less than that costs less than waking a thread."""


async def off_loop(
    size: int | None, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """The result of `work`, done in a thread when it handles many bytes (`size`; None when that is unknown), else on
    the event loop.
    """
    if size is None or size >= IN_THREAD_BYTES_MIN:
        return await asyncio.to_thread(work, *args, **kwargs)
    return work(*args, **kwargs)


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
