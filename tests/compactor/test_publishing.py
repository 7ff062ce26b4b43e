"""Compactors that die, sleep or race: a manifest is published once, and nothing is lost."""

from __future__ import annotations

import asyncio
import random
from typing import Any, cast

import pytest

from compactor.checkpoints import Step
from compactor.compaction import Ending
from shared.errors import Gone, Unavailable
from shared.manifest.newest import newest_manifest
from shared.objects.open import open_store
from shared.objects.port import ObjectStore
from shared.records.model import Op
from tests.compactor.conftest import Shop
from tests.compactor.steps import DiesAt, Stop, WaitsAt, row


@pytest.mark.parametrize("step", [Step.READ, Step.APPLIED, Step.BUILT, Step.UPLOADED, Step.CREATED, Step.COMMITTED])
async def test_dying_at_any_step_loses_nothing_and_the_next_compactor_goes_on(shop: Shop, step: Step) -> None:
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(30)})
    await shop.compactor().compact(shop.collection.id, 0)
    await shop.write(Op.UPSERT, {f"id{n}": row(random.Random(n)) for n in range(20, 60)})
    await shop.delete(["id1"])
    with pytest.raises(Stop):
        await shop.compactor(DiesAt(step)).compact(shop.collection.id, 0)
    expected = {Step.CREATED: [Ending.COMPLETED, Ending.NOTHING], Step.COMMITTED: [Ending.NOTHING]}
    survivor = shop.compactor()
    endings = [await survivor.compact(shop.collection.id, 0)]
    while endings[-1] is not Ending.NOTHING:
        endings.append(await survivor.compact(shop.collection.id, 0))
    assert endings == expected.get(step, [Ending.PUBLISHED, Ending.NOTHING])
    assert (await shop.published()).version == 2
    assert await shop.records() == shop.model


async def test_a_first_manifest_without_a_pointer_is_completed(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    with pytest.raises(Stop):
        await shop.compactor(DiesAt(Step.CREATED)).compact(shop.collection.id, 0)
    assert await shop.manifest() is None
    await shop.write(Op.ADD, {"b": row(random.Random(2))})
    compactor = shop.compactor()
    assert await compactor.compact(shop.collection.id, 0) is Ending.COMPLETED
    assert (await shop.published()).rows == 1
    assert await compactor.compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await shop.records() == shop.model


async def test_a_second_compactor_cannot_publish_the_same_version(shop: Shop) -> None:
    await shop.write(Op.ADD, {f"id{n}": row(random.Random(n)) for n in range(30)})
    waiting = [WaitsAt(Step.UPLOADED) for _ in range(4)]
    racing = [asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0)) for wait in waiting]
    for wait in waiting:
        await wait.there.wait()
    for wait in waiting:
        wait.go.set()
    endings = await asyncio.gather(*racing)
    # Whoever finds the winner's manifest before its pointer moved sets the same pointer: one publication all the same.
    assert endings.count(Ending.PUBLISHED) == 1
    assert set(endings) <= {Ending.PUBLISHED, Ending.COMPLETED, Ending.LOST}
    assert (await shop.published()).version == 1
    assert await shop.records() == shop.model


async def test_a_compactor_that_slept_through_another_ones_publication_throws_its_work_away(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    wait = WaitsAt(Step.UPLOADED)
    slow = asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0))
    await wait.there.wait()
    for number in range(2):
        await shop.write(Op.UPSERT, {f"b{number}": row(random.Random(number))})
        assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    wait.go.set()
    assert await slow is Ending.LOST
    assert (await shop.published()).version == 2
    assert await shop.records() == shop.model


async def test_a_compactor_that_creates_after_the_pointer_moved_on_cannot_commit(shop: Shop) -> None:
    """As when old manifests were collected already: the name is free again, the pointer decides."""
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    wait = WaitsAt(Step.UPLOADED)
    slow = asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0))
    await wait.there.wait()
    for number in range(2):
        await shop.write(Op.UPSERT, {f"b{number}": row(random.Random(number))})
        await shop.compactor().compact(shop.collection.id, 0)
    await shop.objects.delete([f"{shop.collection.id}/0/manifests/{1:020d}.json"])
    wait.go.set()
    assert await slow is Ending.LOST
    assert (await shop.published()).version == 2
    newest = (await newest_manifest(shop.objects, shop.collection.id, 0)).found
    assert newest is not None
    assert newest[0].version == 2


async def test_a_fold_that_is_overtaken_stops(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    wait = WaitsAt(Step.READ)
    slow = asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0))
    await wait.there.wait()
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    wait.go.set()
    assert await slow is Ending.LOST


async def test_an_unfinished_manifest_whose_segment_is_gone_is_never_committed_and_stops_nobody(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    with pytest.raises(Stop):
        await shop.compactor(DiesAt(Step.CREATED)).compact(shop.collection.id, 0)
    files = [info.key async for info in shop.objects.list(f"{shop.collection.id}/0/segments/")]
    await shop.objects.delete(files[:1])
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert (await shop.published()).version == 2
    assert await shop.records() == shop.model
    await shop.write(Op.ADD, {"b": row(random.Random(2))})
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    parent = (await shop.published()).parent
    assert parent is not None
    assert parent.version == 2
    assert await shop.records() == shop.model


async def test_a_deleted_collection_is_gone(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    wait = WaitsAt(Step.CREATED)
    late = asyncio.create_task(shop.compactor(wait).compact(shop.collection.id, 0))
    await wait.there.wait()
    database = await shop.db()
    await shop.catalog.collections.delete(database, "shop")
    with pytest.raises(Gone):
        await shop.compactor().compact(shop.collection.id, 0)
    wait.go.set()
    with pytest.raises(Gone):
        await late


async def test_object_storage_that_is_away_ends_the_job_without_harm(shop: Shop) -> None:
    class Away:
        def __getattr__(self, name: str) -> Any:
            if name == "put":
                return self.fail
            return getattr(shop.objects, name)

        async def fail(self, *_: object) -> None:
            raise Unavailable("object storage: away")

    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    with pytest.raises(Unavailable):
        await shop.compactor(objects=cast(ObjectStore, Away())).compact(shop.collection.id, 0)
    assert await shop.compactor().compact(shop.collection.id, 0) is Ending.PUBLISHED
    assert await shop.records() == shop.model


async def test_the_same_over_s3(shop: Shop, s3_bucket: str) -> None:
    """Two compactors by turns, one of them dying, on an S3-compatible server."""
    async with open_store(f"s3://{s3_bucket}/{shop.keys.prefix}") as objects:
        shop.objects = objects
        for number in range(3):
            await shop.write(Op.UPSERT, {f"id{n}": row(random.Random(n + number)) for n in range(10 * number, 50)})
            with pytest.raises(Stop):
                await shop.compactor(DiesAt(Step.CREATED if number % 2 else Step.UPLOADED)).compact(
                    shop.collection.id, 0
                )
            survivor = shop.compactor()
            while await survivor.compact(shop.collection.id, 0) is not Ending.NOTHING:
                pass
            assert (await shop.published()).version == number + 1
            assert await shop.records() == shop.model
