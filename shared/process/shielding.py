"""Work that must come to its end although its caller is cancelled: giving back what was reserved, waiting for a thread.

`asyncio.shield` protects the work and not the caller: that one goes on at once when it is cancelled, while the work is
still under way, and nobody learns how it ends. Here the caller waits for the end first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

Result = TypeVar("Result")


def _nothing() -> None:
    pass


async def run_to_end(
    work: Awaitable[Result], *, deadline_s: float | None = None, on_cancel: Callable[[], None] = _nothing
) -> Result:
    """The result of `work`, or what it raises.

    When the caller is cancelled, however often, the work goes on; `on_cancel` is called each time, to tell it that its
    result is not wanted any more. CancelledError is raised when the work has ended, whatever came of it. Work that has
    not ended within `deadline_s` is cancelled, and then TimeoutError is raised, unless the caller was cancelled.
    """
    task = asyncio.ensure_future(work)
    expired = False
    cancelled: asyncio.CancelledError | None = None

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = None if deadline_s is None else asyncio.get_running_loop().call_later(deadline_s, expire)
    try:
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
                on_cancel()
    finally:
        if timer is not None:
            timer.cancel()
    if cancelled is not None:
        if not task.cancelled():
            task.exception()  # taken note of: nobody else will
        raise cancelled
    if task.cancelled() and expired:
        raise TimeoutError(f"not done within {deadline_s} s")
    return task.result()
