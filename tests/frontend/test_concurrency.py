from __future__ import annotations

import threading

import pytest

from frontend.concurrency import IN_THREAD_BYTES_MIN, off_loop


@pytest.mark.parametrize(("size", "leaves"), [(0, False), (IN_THREAD_BYTES_MIN, True), (None, True)])
async def test_work_on_many_bytes_leaves_the_event_loop(size: int | None, leaves: bool) -> None:
    thread = await off_loop(size, threading.get_ident)
    assert (thread != threading.get_ident()) is leaves
