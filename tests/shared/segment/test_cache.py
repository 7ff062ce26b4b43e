from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from shared.errors import Corrupt, Unavailable
from shared.objects.memory import MemoryStore
from shared.objects.port import ObjectStore
from shared.records.digest import record_digests
from shared.records.model import record_schema
from shared.segment.cache import SegmentCache
from shared.segment.format import SegmentInfo, verify
from shared.segment.writer import GraphParams, write_segment
from shared.vectors.space import Space


class Counting(MemoryStore):
    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.downloads: list[str] = []
        self.away = False

    async def download(self, key: str, path: Path) -> None:
        if self.away:
            raise Unavailable("away")
        self.downloads.append(key)
        await asyncio.sleep(0)
        await super().download(key, path)


def records(count: int) -> pa.Table:
    table = pa.table(
        {
            "id": [f"id{number}" for number in range(count)],
            "inserted": np.arange(1, count + 1),
            "written": np.arange(1, count + 1),
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(np.ones(2 * count, np.float32)), 2),
            "document": pa.nulls(count, pa.large_string()),
            "metadata": pa.nulls(count, pa.large_string()),
            "uri": pa.nulls(count, pa.large_string()),
        }
    )
    return table.append_column("digest", record_digests(table)).select(record_schema(2).names).cast(record_schema(2))


@pytest.fixture
def objects() -> Counting:
    return Counting()


async def stored(objects: ObjectStore, folder: Path, name: str, count: int = 10) -> SegmentInfo:
    path = f"c/0/segments/{name}"
    info = write_segment(folder / name, name, path, records(count), GraphParams(Space.L2, 100, 16, 1)).info
    for file in info.files:
        await objects.put(f"{path}/{file.name}", folder / name / file.name)
    return info


async def opened(objects: ObjectStore, root: Path, bytes_max: int = 1 << 30) -> SegmentCache:
    cache = SegmentCache(objects, root, bytes_max)
    await cache.open()
    return cache


def size(info: SegmentInfo) -> int:
    return sum(file.bytes for file in info.files)


def present(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if not path.name.startswith("."))


async def use(cache: SegmentCache, info: SegmentInfo) -> None:
    async with cache.hold(info) as folder:
        await asyncio.to_thread(verify, folder, info)


async def test_a_segment_is_fetched_once_however_many_ask(objects: Counting, tmp_path: Path) -> None:
    info = await stored(objects, tmp_path, "s1")
    cache = await opened(objects, tmp_path / "cache")

    async def use() -> None:
        async with cache.hold(info) as folder:
            verify(folder, info)

    await asyncio.gather(*(use() for _ in range(8)))
    await use()
    assert sorted(objects.downloads) == sorted(f"{info.path}/{file.name}" for file in info.files)


async def test_the_next_process_finds_what_the_one_before_fetched(objects: Counting, tmp_path: Path) -> None:
    info = await stored(objects, tmp_path, "s1")
    async with (await opened(objects, tmp_path / "cache")).hold(info):
        pass
    objects.downloads.clear()
    async with (await opened(objects, tmp_path / "cache")).hold(info) as folder:
        verify(folder, info)
    assert objects.downloads == []


async def test_what_was_damaged_on_disk_between_two_processes_is_fetched_again(
    objects: Counting, tmp_path: Path
) -> None:
    info = await stored(objects, tmp_path, "s1")
    async with (await opened(objects, tmp_path / "cache")).hold(info) as folder:
        (folder / "ids.index").write_bytes(b"damage")
    async with (await opened(objects, tmp_path / "cache")).hold(info) as folder:
        verify(folder, info)


async def test_a_segment_that_is_wrong_in_the_bucket_is_fetched_twice_and_never_served(
    objects: Counting, tmp_path: Path
) -> None:
    info = await stored(objects, tmp_path, "s1")
    await objects.put(f"{info.path}/ids.index", b"damage")
    cache = await opened(objects, tmp_path / "cache")
    with pytest.raises(Corrupt):
        async with cache.hold(info):
            pass
    assert len(objects.downloads) == 2 * len(info.files)
    assert list((tmp_path / "cache" / ".incoming").iterdir()) == []
    assert not (tmp_path / "cache" / "s1").exists()


async def test_a_missing_file_is_corruption_and_an_absent_store_is_not(objects: Counting, tmp_path: Path) -> None:
    info = await stored(objects, tmp_path, "s1")
    cache = await opened(objects, tmp_path / "cache")
    objects.away = True
    with pytest.raises(Unavailable):
        async with cache.hold(info):
            pass
    objects.away = False
    await objects.delete([f"{info.path}/ids.index"])
    with pytest.raises(Corrupt, match="missing in the bucket"):
        async with cache.hold(info):
            pass


async def test_the_budget_drops_the_segment_unused_for_the_longest_time_and_none_in_use(
    objects: Counting, tmp_path: Path
) -> None:
    infos = [await stored(objects, tmp_path, f"s{number}") for number in range(3)]
    cache = await opened(objects, tmp_path / "cache", 2 * size(infos[0]))

    async with cache.hold(infos[0]), cache.hold(infos[1]), cache.hold(infos[2]):
        assert present(tmp_path / "cache") == ["s0", "s1", "s2"]
    assert present(tmp_path / "cache") in (["s0", "s1"], ["s0", "s2"], ["s1", "s2"])
    async with cache.hold(infos[0]):
        pass
    async with cache.hold(infos[1]):
        pass
    async with cache.hold(infos[0]):
        pass
    async with cache.hold(infos[2]):
        pass
    assert present(tmp_path / "cache") == ["s0", "s2"]


async def test_a_segment_that_was_built_here_is_taken_over_without_fetching(objects: Counting, tmp_path: Path) -> None:
    cache = await opened(objects, tmp_path / "cache")
    info = await stored(objects, tmp_path, "s1")
    await cache.adopt(info, tmp_path / "s1")
    async with cache.hold(info) as folder:
        verify(folder, info)
    assert objects.downloads == []
    assert not (tmp_path / "s1").exists()


async def test_fetching_goes_on_when_the_one_who_asked_first_is_cancelled(objects: Counting, tmp_path: Path) -> None:
    info = await stored(objects, tmp_path, "s1")
    cache = await opened(objects, tmp_path / "cache")

    async def use() -> None:
        async with cache.hold(info):
            pass

    first = asyncio.create_task(use())
    await asyncio.sleep(0)
    second = asyncio.create_task(use())
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert len(objects.downloads) == len(info.files)


async def test_an_id_that_is_a_path_is_refused(objects: Counting, tmp_path: Path) -> None:
    info = await stored(objects, tmp_path, "s1")
    with pytest.raises(Corrupt):
        async with (await opened(objects, tmp_path / "cache")).hold(msgspec.structs.replace(info, id="../s1")):
            pass


async def test_a_segment_that_is_being_verified_is_not_evicted_under_the_verification(
    objects: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had no user yet when the eviction chose it."""
    infos = [await stored(objects, tmp_path / "built", name) for name in ("s1", "s2")]
    before = await opened(objects, tmp_path / "cache")
    for info in infos:
        async with before.hold(info):
            pass
    cache = await opened(objects, tmp_path / "cache")
    cache._bytes_max = 0
    discard, begun, go = cache._discard, asyncio.Event(), asyncio.Event()

    async def slow(name: str) -> None:
        begun.set()
        await go.wait()
        await discard(name)

    monkeypatch.setattr(cache, "_discard", slow)
    evicting = asyncio.create_task(cache._keep_within_budget())
    await begun.wait()
    checking, checked = threading.Event(), threading.Event()

    def slow_verify(directory: Path, info: SegmentInfo) -> None:
        checking.set()
        checked.wait(10)
        verify(directory, info)

    monkeypatch.setattr("shared.segment.cache.verify", slow_verify)

    async def held() -> bool:
        async with cache.hold(infos[1]) as folder:
            return folder.is_dir()

    using = asyncio.create_task(held())
    await asyncio.to_thread(checking.wait, 10)
    go.set()
    await evicting
    checked.set()
    assert await using
