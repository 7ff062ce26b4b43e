"""Cancellation of jobs: the threads of a job that is given up are told, and waited for.

A thread cannot be ended from outside. So the work that runs in one looks at a token between its steps; and whoever
started it waits until it has ended, before the files that it works with go.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from shared.errors import PolychromeError
from shared.process.shielding import run_to_end

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Abandoned(PolychromeError):
    """The job is given up: its lease was lost, or the process stops."""

    code = "abandoned"


class CancellationToken:
    """Cancelled from the event loop, looked at by the threads that work."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def cancel(self) -> None:
        self._cancelled.set()

    def check(self) -> None:
        """Raises Abandoned when the token was cancelled."""
        if self._cancelled.is_set():
            raise Abandoned("the job was given up")


async def in_thread(work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
    """The result of `work`, done in a thread. A caller that is cancelled goes on when the thread has ended: it may be
    reading files that the caller holds, or changing what others use next.
    """
    return await run_to_end(asyncio.to_thread(work, *args, **kwargs))


async def in_cancellable_thread(
    token: CancellationToken, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """The result of `work`, which checks `token` now and then, done in a thread. When the caller is cancelled, so is
    the token, and the caller goes on when the thread has ended.
    """
    return await run_to_end(asyncio.to_thread(work, *args, **kwargs), on_cancel=token.cancel)
