"""Heavy work leaves the event loop for a thread. There it ends soon after its request was cancelled."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

from shared.process.work import Work

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
        given_up = threading.Event()
        try:
            return await asyncio.to_thread(Work(given_up=given_up.is_set).do, functools.partial(work, *args, **kwargs))
        except asyncio.CancelledError:
            given_up.set()
            raise
    return work(*args, **kwargs)
