"""Jobs that are cancelled or given up: their threads are told, and what these use is there until they have ended."""

from __future__ import annotations

import asyncio
import importlib
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compactor import merge
from compactor.build import Built
from compactor.cancellation import Abandoned, CancellationToken
from compactor.checkpoints import Step
from compactor.initial_manifests import initial_manifests
from compactor.publish import Publisher
from shared.catalog.functions import STATISTICS
from shared.records.model import Op
from tests.compactor.conftest import Shop
from tests.compactor.steps import WaitsAt, row
from tests.compactor.test_rebuild import churn, compact_all, want
from tests.functions.workshop import Workshop


class Building:
    """Takes the place of `build`: writes into its folder, over and over, until it is told to stop. With `deaf` set it
    does not listen.
    """

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.deaf = threading.Event()
        self.test_is_over = threading.Event()
        self.ended = threading.Event()
        self.folder_was_there = False

    def __call__(self, directory: Path, *rest: Any) -> None:
        check: Callable[[], None] = rest[6]
        directory.mkdir()
        self.begun.set()
        try:
            while not self.test_is_over.is_set():
                (directory / "file").write_bytes(b"x")
                if not self.deaf.is_set():
                    check()
        finally:
            self.folder_was_there = directory.exists()
            self.ended.set()


@pytest.fixture
def building(monkeypatch: pytest.MonkeyPatch) -> Iterator[Building]:
    stand_in = Building()
    monkeypatch.setattr(merge, "build", stand_in)
    yield stand_in
    stand_in.test_is_over.set()


async def begun(building: Building) -> None:
    assert await asyncio.to_thread(building.begun.wait, 10)


def scratch(shop: Shop) -> list[Path]:
    return list(shop.folder.glob("compactor-*/building/*"))


async def test_a_cancelled_compaction_tells_its_thread_waits_for_it_and_then_clears_scratch(
    shop: Shop, building: Building
) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    job = asyncio.create_task(shop.compactor().compact(shop.collection.id, 0))
    await begun(building)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert building.ended.is_set()
    assert building.folder_was_there
    assert scratch(shop) == []


async def test_scratch_stays_until_the_thread_has_ended_however_often_the_job_is_cancelled(
    shop: Shop, building: Building
) -> None:
    building.deaf.set()
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    job = asyncio.create_task(shop.compactor().compact(shop.collection.id, 0))
    await begun(building)
    for _ in range(3):
        job.cancel()
        await asyncio.wait([job], timeout=0.02)
    assert not job.done()
    assert len(scratch(shop)) == 1
    building.deaf.clear()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert building.folder_was_there
    assert scratch(shop) == []


async def test_a_job_whose_lease_is_lost_ends_in_the_middle_of_its_thread(shop: Shop, building: Building) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    token = CancellationToken()
    job = asyncio.create_task(shop.compactor().compact(shop.collection.id, 0, token))
    await begun(building)
    token.cancel()
    with pytest.raises(Abandoned):
        await job
    assert building.folder_was_there
    assert scratch(shop) == []


async def test_an_abandoned_job_stops_at_the_next_step_and_leaves_scratch_empty(shop: Shop) -> None:
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    token = CancellationToken()
    wait = WaitsAt(Step.APPLIED)
    compactor = shop.compactor(wait)
    job = asyncio.create_task(compactor.compact(shop.collection.id, 0, token))
    await wait.there.wait()
    token.cancel()
    wait.go.set()
    with pytest.raises(Abandoned):
        await job
    assert await shop.manifest() is None
    assert scratch(shop) == []


# ---- threads that take no notice: they are waited for


class Thread:
    """Stands in for a method or function that runs in a thread: waits until it is let go, and then does its work."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.ended = threading.Event()
        self._work = work

    def __call__(self, *args: Any) -> Any:
        self.begun.set()
        self.go_on.wait(20)
        try:
            return self._work(*args)
        finally:
            self.ended.set()


async def assert_waits_for(thread: Thread, job: asyncio.Task[Any], held: Callable[[], object]) -> None:
    """The job, cancelled while the thread is at work, ends after it, and keeps what it holds until then."""
    assert await asyncio.to_thread(thread.begun.wait, 10)
    job.cancel()
    await asyncio.wait([job], timeout=0.05)
    assert not job.done()
    assert held()
    thread.go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert thread.ended.is_set()
    assert not held()


async def test_a_cancelled_rebuild_holds_segments_until_they_are_read(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await churn(shop, random.Random(1), 1)
    await compact_all(shop, shop.collection.layout)
    await want(shop, 2)
    thread = Thread(initial_manifests)
    monkeypatch.setattr("compactor.rebuild.initial_manifests", thread)
    rebuilder = shop.rebuilder()
    job = asyncio.create_task(rebuilder.step(shop.collection.id))
    await assert_waits_for(thread, job, lambda: bool(rebuilder._cache._uses))


async def test_a_cancelled_function_leaves_no_thread_counting_beside_the_next_one(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    workshop = Workshop(shop)
    await churn(shop, random.Random(1), 1)
    await compact_all(shop, shop.collection.layout)
    output = await workshop.attach(shop, STATISTICS)
    runner = workshop.runner()
    thread = Thread(runner._counted.live)
    monkeypatch.setattr(runner._counted, "live", thread)
    job = asyncio.create_task(runner.run(output.collection.id))
    await assert_waits_for(thread, job, runner._counting.locked)


@pytest.mark.parametrize("reading", ["shared.objects.directory._write_durably", "shutil.copyfileobj"])
async def test_an_upload_whose_job_was_cancelled_leaves_whole_objects_or_none(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, reading: str
) -> None:
    """Its threads go on when scratch is gone: before they open a file, or in the middle of it."""
    await shop.write(Op.ADD, {"a": row(random.Random(1))})
    module, _, name = reading.rpartition(".")
    thread = Thread(getattr(importlib.import_module(module), name))
    job = asyncio.create_task(shop.compactor().compact(shop.collection.id, 0))
    sizes: dict[str, int] = {}

    async def upload(publisher: Publisher, built: Built | None) -> None:
        assert built is not None
        sizes.update({file.name: file.bytes for file in built.info.files})
        monkeypatch.setattr(reading, thread)
        await real(publisher, built)

    real = Publisher.upload
    monkeypatch.setattr(Publisher, "upload", upload)
    assert await asyncio.to_thread(thread.begun.wait, 10)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job
    assert scratch(shop) == []
    thread.go_on.set()
    assert await asyncio.to_thread(thread.ended.wait, 10)
    for attempt in range(3):  # the store's threads are as many as the files: a call of each waits behind the uploads
        await asyncio.gather(*(shop.objects.put(f"later/{attempt}/{number}", b"") for number in range(16)))
    found = {info.key.rpartition("/")[2]: info.bytes async for info in shop.objects.list(shop.collection.id)}
    uploaded = {name: size for name, size in found.items() if name in sizes}
    assert uploaded == {name: sizes[name] for name in uploaded}
    assert bool(uploaded) == (name == "copyfileobj")
