"""Functions on a real log and real compactions: outputs against plain dictionaries, whoever dies or is late."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import random
import uuid
from typing import Any

import numpy as np
import pytest

from compactor.statistics import values_of
from frontend.collections.requests import function_output
from shared.catalog import Collection
from shared.catalog.functions import RECORD_COUNTER, STATISTICS
from shared.catalog.image import Images
from shared.errors import AlreadyExists, Attached, Gone
from shared.log.append import Appended, AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.jobs import FUNCTION, Job
from shared.log.outputs import ProvenanceChange
from shared.records.model import Op
from tests.compactor.conftest import Records, Row, Shop
from tests.compactor.steps import row
from tests.compactor.test_rebuild import churn, compact_all, rebuild, want
from tests.functions.workshop import Workshop
from tests.shared.log.appending import make_collection


@pytest.fixture
def workshop(shop: Shop) -> Workshop:
    return Workshop(shop)


def statistics_of(*models: Records) -> dict[str, dict[str, Any]]:
    rows = [record for model in models for record in model.values()]
    found: dict[str, dict[str, Any]] = {}
    for record in rows:
        for value in set(values_of(json.dumps(record[2]))):
            entry = {"count": 0, "key": value.key, "type": value.kind, "value": value.text}
            found.setdefault(f"{value.key}::{value.kind}:{value.text}", entry)["count"] += 1
    found["summary::total_count"] = {"count": len(rows), "key": "summary", "type": "int", "value": "total_count"}
    return found


async def test_a_function_waits_for_the_first_compaction_and_follows_each(shop: Shop, workshop: Workshop) -> None:
    rng = random.Random(1)
    output = await workshop.attach(shop, RECORD_COUNTER)
    assert await workshop.jobs.claim("test", 60) is None
    for _ in range(3):
        await churn(shop, rng, 1)
        await compact_all(shop, shop.collection.layout)
        await workshop.runner().follow(shop.collection.id)
        assert await workshop.held(output) == {"function_output": {"total_count": len(shop.model)}}


async def test_what_is_compacted_already_is_counted_after_attaching(shop: Shop, workshop: Workshop) -> None:
    await churn(shop, random.Random(2), 2)
    await compact_all(shop, shop.collection.layout)
    await shop.refresh()
    version = shop.collection.version
    output = await workshop.attach(shop, STATISTICS)
    await shop.refresh()
    assert shop.collection.version == version
    assert await workshop.jobs.claim("test", 60) == Job(output.collection.id, FUNCTION)
    await workshop.runner().run(output.collection.id)
    assert await workshop.held(output) == statistics_of(shop.model)
    await shop.refresh()
    assert shop.collection.version > version


async def test_the_version_that_is_shown_waits_for_the_function(shop: Shop, workshop: Workshop) -> None:
    rng = random.Random(3)
    output = await workshop.attach(shop, RECORD_COUNTER)
    versions = [shop.collection.version]
    for _ in range(3):
        await churn(shop, rng, 1)
        await compact_all(shop, shop.collection.layout)
        await shop.refresh()
        assert shop.collection.version == versions[-1]
        await workshop.runner().follow(shop.collection.id)
        await shop.refresh()
        versions.append(shop.collection.version)
    assert versions == sorted(set(versions))
    await workshop.functions.detach(await workshop.db(), await refreshed(output), shop.collection, False)
    await shop.refresh()
    assert shop.collection.version >= versions[-1]


async def refreshed(output: Shop) -> Collection:
    await output.refresh()
    return output.collection


@pytest.mark.parametrize(("seed", "shards"), [(1, 1), (2, 3)])
async def test_statistics_agree_with_plain_dictionaries(shop: Shop, workshop: Workshop, seed: int, shards: int) -> None:
    rng = random.Random(seed)
    shop.collection = await make_collection(shop.catalog, await workshop.db(), "several", shards=shards)
    output = await workshop.attach(shop, STATISTICS)
    runner = workshop.runner()
    for number in range(6):
        await churn(shop, rng, 1, rows=rng.choice([5, 60]))
        if number == 4:
            await shop.delete(sorted(shop.model))
        await compact_all(shop, shop.collection.layout)
        await (workshop.runner() if rng.random() < 0.3 else runner).follow(shop.collection.id)
        if rng.random() < 0.5:
            await compact_all(output, output.collection.layout)
    assert await workshop.held(output) == statistics_of(shop.model)
    await want(shop, 5)
    await rebuild(shop)
    await churn(shop, rng, 1)
    await compact_all(shop, shop.collection.layout)
    await runner.follow(shop.collection.id)
    assert await workshop.held(output) == statistics_of(shop.model)


async def test_a_run_that_has_nothing_to_change_appends_nothing(shop: Shop, workshop: Workshop) -> None:
    output = await workshop.attach(shop, RECORD_COUNTER)
    await shop.write(Op.UPSERT, {"a": row(random.Random(4))})
    await compact_all(shop, shop.collection.layout)
    await workshop.runner().run(output.collection.id)
    head = (await refreshed(output)).head
    await workshop.runner().run(output.collection.id)
    await shop.write(Op.UPSERT, {"a": row(random.Random(5))})
    await compact_all(shop, shop.collection.layout)
    await workshop.runner().run(output.collection.id)
    assert (await refreshed(output)).head == head
    await shop.refresh()
    assert shop.collection.counted == shop.collection.compactions


async def test_what_clients_do_to_an_output_is_undone(shop: Shop, workshop: Workshop) -> None:
    output = await workshop.attach(shop, STATISTICS)
    await churn(shop, random.Random(6), 1)
    await compact_all(shop, shop.collection.layout)
    await workshop.runner().follow(shop.collection.id)
    some = sorted(statistics_of(shop.model))
    stray: Row = ((0.0,), "text", {"count": 99, "own": "x"}, None)
    batch = {"stray": stray, some[0]: stray}
    output.model = {}
    await write_one_dimension(output, batch)
    await churn(shop, random.Random(7), 1)
    await compact_all(shop, shop.collection.layout)
    await workshop.runner().follow(shop.collection.id)
    assert await workshop.held(output) == statistics_of(shop.model)


async def write_one_dimension(output: Shop, rows: dict[str, Row]) -> None:
    ids = list(rows)
    metadatas = [json.dumps(rows[one][2]) for one in ids]
    batch = build_batch(Op.UPSERT, ids, np.zeros((len(ids), 1), np.float32), metadatas=metadatas)
    parts = split_batch(batch, output.collection.layout)
    request = AppendRequest(
        collection_id=output.collection.id, request_id=uuid.uuid4().hex, batches=parts, dimension=1, generation=None
    )
    await output.log.append(request)


class Dies(BaseException):
    pass


class DiesIn:
    """Something whose method dies, before or after it did its work."""

    def __init__(self, real: object, method: str, *, after: bool) -> None:
        self._real, self._method, self._after = real, method, after

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if name != self._method:
            return found

        async def dying(*args: Any, **options: Any) -> None:
            if self._after:
                await found(*args, **options)
            raise Dies

        return dying


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize(("part", "method"), [("log", "append"), ("outputs", "note_run"), ("outputs", "provenance")])
async def test_a_run_that_died_is_found_and_repeated(
    shop: Shop, workshop: Workshop, part: str, method: str, after: bool
) -> None:
    rng = random.Random(8)
    output = await workshop.attach(shop, STATISTICS)
    await churn(shop, rng, 1)
    await compact_all(shop, shop.collection.layout)
    real = shop.log if part == "log" else workshop.outputs
    dying = workshop.runner(**{part: DiesIn(real, method, after=after)})
    with pytest.raises(Dies):
        await dying.follow(shop.collection.id)
    seen = part == "outputs" and method == "note_run" and after
    assert await workshop.repair() == ([] if seen else [Job(output.collection.id, FUNCTION)])
    await workshop.runner().run(output.collection.id)
    assert await workshop.held(output) == statistics_of(shop.model)
    assert await workshop.repair() == []
    await shop.refresh()
    assert shop.collection.runs == 1


async def test_a_slow_run_never_puts_back_what_a_later_one_made(shop: Shop, workshop: Workshop) -> None:
    rng = random.Random(9)
    output = await workshop.attach(shop, STATISTICS)
    await churn(shop, rng, 1)
    await compact_all(shop, shop.collection.layout)
    asleep, awake = asyncio.Event(), asyncio.Event()

    class Sleepy:
        def __getattr__(self, name: str) -> Any:
            return getattr(shop.log, name)

        async def append(self, request: AppendRequest) -> Appended:
            asleep.set()
            await awake.wait()
            return await shop.log.append(request)

    slow = asyncio.create_task(workshop.runner(log=Sleepy()).follow(shop.collection.id))
    await asleep.wait()
    await shop.delete(sorted(shop.model)[:30])
    await compact_all(shop, shop.collection.layout)
    await workshop.runner().follow(shop.collection.id)
    awake.set()
    await slow
    assert await workshop.held(output) == statistics_of(shop.model)


async def test_many_runs_at_once_make_one_output(shop: Shop, workshop: Workshop) -> None:
    rng = random.Random(10)
    output = await workshop.attach(shop, STATISTICS)
    await churn(shop, rng, 1)
    await compact_all(shop, shop.collection.layout)
    await asyncio.gather(*(workshop.runner().follow(shop.collection.id) for _ in range(5)))
    head = (await refreshed(output)).head
    assert head == 1 + len(statistics_of(shop.model))
    assert await workshop.held(output) == statistics_of(shop.model)
    await shop.refresh()
    assert shop.collection.runs == 1


async def test_inputs_that_share_an_output_are_counted_together(shop: Shop, workshop: Workshop) -> None:
    rng = random.Random(11)
    output = await workshop.attach(shop, STATISTICS)
    other = dataclasses.replace(
        shop, collection=await make_collection(shop.catalog, await workshop.db(), "other"), model={}
    )
    await workshop.functions.add_input(await workshop.db(), output.collection, other.collection)
    for one in (shop, other):
        await churn(one, rng, 1)
        await compact_all(one, one.collection.layout)
        await workshop.runner().follow(one.collection.id)
    assert await workshop.held(output) == statistics_of(shop.model, other.model)
    await workshop.functions.detach(await workshop.db(), await refreshed(output), other.collection, False)
    await churn(shop, rng, 1)
    await compact_all(shop, shop.collection.layout)
    await workshop.runner().follow(shop.collection.id)
    assert await workshop.held(output) == statistics_of(shop.model)
    await other.refresh()
    assert other.collection.feeds is None


async def test_a_collection_has_one_function_also_among_many_who_attach(shop: Shop, workshop: Workshop) -> None:
    attached = await asyncio.gather(
        *(workshop.attach(shop, RECORD_COUNTER, f"output{number}") for number in range(5)), return_exceptions=True
    )
    assert sorted(type(one).__name__ for one in attached) == ["Attached"] * 4 + ["Shop"]
    assert await shop.catalog.collections.count(await workshop.db()) == 2


async def test_the_outputs_name_is_taken(shop: Shop, workshop: Workshop) -> None:
    with pytest.raises(AlreadyExists):
        await workshop.attach(shop, RECORD_COUNTER, shop.collection.name)
    assert await workshop.functions.output_of(await workshop.db(), shop.collection) is None


async def test_deleted_collections_get_no_function(shop: Shop, workshop: Workshop) -> None:
    await shop.catalog.collections.delete(await workshop.db(), shop.collection.name)
    with pytest.raises(Gone):
        await workshop.attach(shop, RECORD_COUNTER)
    assert await shop.catalog.collections.count(await workshop.db()) == 0


@pytest.mark.parametrize("how", ["output", "detach", "detach and delete"])
async def test_after_detaching_another_function_can_be_attached(shop: Shop, workshop: Workshop, how: str) -> None:
    db = await workshop.db()
    output = await workshop.attach(shop, RECORD_COUNTER)
    if how == "output":
        assert await shop.catalog.collections.delete(db, "output")
    else:
        await workshop.functions.detach(db, output.collection, shop.collection, how != "detach")
    assert await workshop.functions.output_of(db, shop.collection) is None
    assert (await shop.catalog.collections.get(db, "output") is not None) == (how == "detach")
    await shop.refresh()
    assert shop.collection.feeds is None
    await workshop.runner().run(output.collection.id)
    with pytest.raises(Attached):
        await workshop.attach(await attached_again(shop, workshop), STATISTICS, "third")


async def attached_again(shop: Shop, workshop: Workshop) -> Shop:
    await workshop.attach(shop, STATISTICS, "second")
    return shop


async def test_what_died_between_attaching_and_the_states_is_repaired(shop: Shop, workshop: Workshop) -> None:
    await churn(shop, random.Random(12), 1)
    await compact_all(shop, shop.collection.layout)
    new = function_output("output", "my function", RECORD_COUNTER, shop.collection.id)
    output, _ = await shop.catalog.collections.create(await workshop.db(), new, get_or_create=False)
    assert await workshop.repair() == [Job(output.id, FUNCTION)]
    await workshop.runner().run(output.id)
    assert await workshop.repair() == []
    await workshop.outputs.feed(output.id, str(uuid.uuid4()), 0)  # by a detaching that died
    await workshop.repair()
    repaired = await shop.catalog.collections.get(await workshop.db(), "output")
    assert repaired is not None
    assert repaired.feeds is None


async def test_an_image_of_the_catalog_has_functions(shop: Shop, workshop: Workshop) -> None:
    output = await workshop.attach(shop, RECORD_COUNTER)
    images = Images(shop.redis, shop.keys, shop.catalog)
    cluster = await shop.catalog.mark.read()
    assert cluster is not None
    image = await images.take(cluster)
    await shop.redis.flushdb()
    for one in image.collections:
        await images.restore_state(one, one.head, 1, one.head, [None])
    await images.restore_rows(image, 1)
    await shop.catalog.mark.open()
    found = await workshop.functions.output_of(await workshop.db(), shop.collection)
    assert found is not None
    assert found.function == output.collection.function
    assert await workshop.repair() == [Job(found.id, FUNCTION)]
    await workshop.runner().run(found.id)
    assert await workshop.repair() == []


async def test_content_made_of_something_else_is_not_appended_to(shop: Shop, workshop: Workshop) -> None:
    output = await workshop.attach(shop, RECORD_COUNTER)
    assert await workshop.outputs.set_provenance(output.collection.id, ProvenanceChange(b"", b"1", 0))
    assert not await workshop.outputs.set_provenance(output.collection.id, ProvenanceChange(b"", b"2", 0))
    assert await workshop.outputs.provenance(output.collection.id) == (b"1", 0)
