"""A compaction and the garbage collector that takes its uploads for leftovers."""

from __future__ import annotations

import asyncio
import random

from compactor.checkpoints import Step
from compactor.compaction import Ending
from shared.records.model import Op
from tests.compactor.conftest import Shop
from tests.compactor.steps import WaitsAt, row


async def test_a_compactor_that_slept_until_its_uploads_were_collected_names_them_in_no_manifest(shop: Shop) -> None:
    """A process that is stopped for longer than the grace period (a paused container, a suspended machine)."""
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    wait = WaitsAt(Step.UPLOADED)
    slow = asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0))
    await wait.there.wait()
    files = [info.key async for info in shop.objects.list(f"{shop.collection.id}/0/segments/")]
    await shop.objects.delete(files[:1])
    wait.go.set()
    assert await slow is Ending.LOST
    assert await shop.manifest() is None
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await shop.records() == shop.model
