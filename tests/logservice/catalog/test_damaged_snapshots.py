"""Snapshots of the catalog that are damaged: noticed, named, passed over, and nothing lost that the journal has."""

from __future__ import annotations

import msgspec
import pytest

from shared import limits
from shared.catalog.image import CatalogImage, decode_image
from shared.errors import Corrupt
from shared.objects.keys import snapshot_key
from tests.logservice.catalog.journaling import JournaledCluster
from tests.logservice.catalog.test_journal import lose, names, world
from tests.shared.log.appending import make_collection

__all__ = ["world"]


def test_any_flipped_bit_of_a_snapshot_is_noticed() -> None:
    intact = CatalogImage("cluster", 3, 7, 1.5, [], [], [], {"gone": 2.0}).encode()
    assert decode_image(intact).epoch == 3
    for bit in range(8 * len(intact)):
        flipped = bytearray(intact)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(Corrupt):
            decode_image(bytes(flipped))


def test_a_snapshot_of_format_1_is_read() -> None:
    image = CatalogImage("cluster", 3, 7, 1.5, [], [], [])
    members = msgspec.to_builtins(image) | {"format": 1}
    del members["checksum"]
    assert decode_image(msgspec.json.encode(members)) == image


@pytest.mark.parametrize("cut", [True, False])
async def test_a_damaged_snapshot_loses_nothing_that_the_journal_has(world: JournaledCluster, cut: bool) -> None:
    db = await world.database()
    await make_collection(world.catalog, db, "old")
    await make_collection(world.catalog, db, "doomed")
    await world.snapshot()
    await world.tidy()
    await world.catalog.collections.delete(db, "doomed")
    await make_collection(world.catalog, db, "new")
    await world.snapshot()
    await world.tidy()
    await make_collection(world.catalog, db, "newest")
    number = await world.snapshots.next_number()
    key = snapshot_key(number - 1)
    data = bytearray(await world.objects.get(key))
    data[len(data) // 2] ^= 1
    await world.objects.put(key, bytes(data[:-9] if cut else data))
    epoch = (await world.cluster()).epoch
    await lose(world)
    assert await names(world) == ["old", "new", "newest"]
    report = await world.images.read_report()
    assert report is not None
    assert report["damaged_snapshots"] == [key]
    assert (await world.cluster()).epoch == epoch + 2, "the damaged one may have begun an epoch"
    assert await world.snapshots.next_number() > number
    await lose(world)
    assert await names(world) == ["old", "new", "newest"]


async def test_a_damaged_snapshot_stops_no_restart_and_is_a_sign_of_a_redis_that_went_back(
    world: JournaledCluster,
) -> None:
    db = await world.database()
    made = await make_collection(world.catalog, db, "old")
    await world.snapshot()
    await world.snapshot()
    key = snapshot_key(await world.snapshots.next_number() - 1)
    await world.objects.put(key, b"damaged")
    await world.catalog.mark.mark_verified("an earlier run", (await world.cluster()).epoch)
    head, epoch = (await world.log.read(made.id, 0)).state.head, (await world.cluster()).epoch
    await world.reconcile()
    state = (await world.log.read(made.id, 0)).state
    assert state.head >= head + 2 * limits.BACKLOG_OPS_CEILING
    assert state.epoch == (await world.cluster()).epoch > epoch
    assert await names(world) == ["old"]


async def test_a_bucket_whose_snapshots_are_all_damaged_is_not_taken_for_a_new_one(world: JournaledCluster) -> None:
    await world.snapshot()
    keys = [info.key async for info in world.objects.list("catalog/0")]
    for key in keys:
        await world.objects.put(key, b"damaged")
    await world.wipe()
    with pytest.raises(Corrupt, match="damaged"):
        await world.reconcile()
