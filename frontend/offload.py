"""Work too heavy for the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from frontend.body import PARSE_IN_THREAD_BYTES

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def off_loop(
    size: int | None, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Do `work` in a thread when it handles many bytes (None: nobody knows), else here: a thread costs more."""
    if size is None or size >= PARSE_IN_THREAD_BYTES:
        return await asyncio.to_thread(work, *args, **kwargs)
    return work(*args, **kwargs)
