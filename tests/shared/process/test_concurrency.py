from __future__ import annotations

import asyncio

import pytest

from shared.errors import Gone
from shared.process.concurrency import map_concurrently, together


class Hanging:
    """Calls that never end unless they are cancelled."""

    def __init__(self) -> None:
        self.begun = self.cancelled = 0

    async def __call__(self, _item: object = None) -> int:
        self.begun += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return 0


async def failing() -> int:
    await asyncio.sleep(0)
    raise Gone("deleted")


async def test_one_failing_call_fails_all_and_stops_the_others() -> None:
    hanging = Hanging()
    with pytest.raises(Gone):
        await together([hanging(), failing(), hanging()])
    assert (hanging.begun, hanging.cancelled) == (2, 2)


async def test_a_cancelled_caller_leaves_no_call_behind() -> None:
    hanging = Hanging()
    caller = asyncio.ensure_future(together([hanging(), hanging()]))
    await asyncio.sleep(0.01)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert hanging.cancelled == 2


async def test_items_are_worked_on_so_many_at_a_time_and_results_keep_their_order() -> None:
    under_way = most = 0

    async def work(item: int) -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        await asyncio.sleep(0.001 * (item % 3))
        under_way -= 1
        return item * item

    assert await map_concurrently(work, range(20), at_once=4) == [item * item for item in range(20)]
    assert most == 4
    assert await map_concurrently(work, [], at_once=4) == []


async def test_an_item_that_fails_ends_the_work_on_all() -> None:
    hanging = Hanging()

    async def work(item: int) -> int:
        return await (failing() if item == 1 else hanging())

    with pytest.raises(Gone):
        await map_concurrently(work, range(100), at_once=3)
    assert (hanging.begun, hanging.cancelled) == (2, 2)
