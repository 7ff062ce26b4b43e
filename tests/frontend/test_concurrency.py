from __future__ import annotations

import asyncio
import threading

import pytest

from frontend.concurrency import IN_THREAD_BYTES_MIN, off_loop, together
from shared.errors import Gone


async def test_one_failing_call_fails_all_and_stops_the_others() -> None:
    stopped = asyncio.Event()

    async def slow() -> int:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            stopped.set()
            raise
        return 0

    async def failing() -> int:
        await asyncio.sleep(0)
        raise Gone("deleted")

    with pytest.raises(Gone):
        await together([slow(), failing()])
    await asyncio.wait_for(stopped.wait(), 1)


@pytest.mark.parametrize(("size", "leaves"), [(0, False), (IN_THREAD_BYTES_MIN, True), (None, True)])
async def test_work_on_many_bytes_leaves_the_event_loop(size: int | None, leaves: bool) -> None:
    thread = await off_loop(size, threading.get_ident)
    assert (thread != threading.get_ident()) is leaves
