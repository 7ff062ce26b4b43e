"""The segment cache makes room before it needs it, and copes with a volume that others fill."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter as Multiset
from pathlib import Path

import pytest

from shared.errors import Unavailable
from shared.objects.directory import open_directory
from shared.objects.retrying import RetryingStore
from shared.process.clock import SystemClock
from tests.shared.segment.test_cache import Counting, opened, present, size, stored, use
from tests.small_volume import VOLUME_BYTES, small_volume

__all__ = ["small_volume"]


class Watched(Counting):
    """Says what whole segments were in the cache when each download began; downloads wait for `go`."""

    def __init__(self, root: Path) -> None:
        super().__init__()
        self.root = root
        self.beside: dict[str, list[str]] = {}
        self.begun: asyncio.Queue[str] = asyncio.Queue()
        self.go = asyncio.Event()
        self.go.set()

    async def download(self, key: str, path: Path) -> None:
        segment = key.split("/")[3]
        if segment not in self.beside:
            self.beside[segment] = present(self.root)
            self.begun.put_nowait(segment)
        await self.go.wait()
        await super().download(key, path)


class Full(Counting):
    """A store that finds no room while more than `segments_max` whole segments are in the cache."""

    def __init__(self, root: Path, segments_max: int) -> None:
        super().__init__()
        self.root = root
        self.segments_max = segments_max

    async def download(self, key: str, path: Path) -> None:
        await super().download(key, path)
        if len(present(self.root)) > self.segments_max:
            raise OSError(errno.ENOSPC, "No space left on device")


@pytest.fixture
def objects() -> Counting:
    return Counting()


class RoomForOne(Counting):
    """A store whose downloads find no room while two segments are being downloaded, as the first two are."""

    def __init__(self) -> None:
        super().__init__()
        self.under_way: Multiset[str] = Multiset()
        self.met = asyncio.Event()

    async def download(self, key: str, path: Path) -> None:
        segment = key.split("/")[3]
        self.under_way[segment] += 1
        try:
            if len(+self.under_way) == 2:
                self.met.set()
            await self.met.wait()
            for _ in range(20):
                if len(+self.under_way) == 2:
                    raise OSError(errno.ENOSPC, "No space left on device")
                await asyncio.sleep(0)
            await super().download(key, path)
        finally:
            await asyncio.sleep(0.01)
            self.under_way[segment] -= 1


async def test_room_is_made_before_a_segment_is_downloaded(tmp_path: Path) -> None:
    objects = Watched(tmp_path / "cache")
    infos = [await stored(objects, tmp_path, f"s{number}") for number in range(3)]
    cache = await opened(objects, tmp_path / "cache", 2 * size(infos[0]))
    for info in infos:
        await use(cache, info)
    assert objects.beside == {"s0": [], "s1": ["s0"], "s2": ["s1"]}


async def test_segments_that_are_fetched_at_the_same_time_count_each_other(tmp_path: Path) -> None:
    objects = Watched(tmp_path / "cache")
    infos = [await stored(objects, tmp_path, f"s{number}") for number in range(5)]
    cache = await opened(objects, tmp_path / "cache", 3 * size(infos[0]))
    for info in infos[:3]:
        await use(cache, info)
    objects.go.clear()
    together = asyncio.gather(use(cache, infos[3]), use(cache, infos[4]))
    while not {"s3", "s4"} <= objects.beside.keys():
        await objects.begun.get()
    assert present(tmp_path / "cache") == ["s2"]
    objects.go.set()
    await together
    assert present(tmp_path / "cache") == ["s2", "s3", "s4"]


async def test_a_fetch_beside_segments_that_are_all_in_use_goes_beyond_the_budget(
    objects: Counting, tmp_path: Path
) -> None:
    infos = [await stored(objects, tmp_path, f"s{number}") for number in range(3)]
    cache = await opened(objects, tmp_path / "cache", 2 * size(infos[0]))
    async with cache.hold(infos[0]), cache.hold(infos[1]):
        async with cache.hold(infos[2]):
            assert present(tmp_path / "cache") == ["s0", "s1", "s2"]
        assert present(tmp_path / "cache") == ["s0", "s1"]


async def test_what_somebody_waits_for_is_not_evicted_before_it_is_used(tmp_path: Path) -> None:
    """With room for one segment only, each of two that are fetched at once is downloaded once."""
    objects = Watched(tmp_path / "cache")
    infos = [await stored(objects, tmp_path, f"s{number}") for number in range(2)]
    cache = await opened(objects, tmp_path / "cache", size(infos[0]))
    await asyncio.gather(*(use(cache, info) for info in infos))
    assert len(objects.downloads) == sum(len(info.files) for info in infos)


async def test_a_full_volume_costs_the_segments_that_nobody_uses(tmp_path: Path) -> None:
    objects = Full(tmp_path / "cache", segments_max=2)
    infos = [await stored(objects, tmp_path, f"s{number}") for number in range(4)]
    cache = await opened(objects, tmp_path / "cache")
    objects.segments_max = 3
    async with cache.hold(infos[0]):
        await use(cache, infos[1])
        await use(cache, infos[2])
        objects.segments_max = 1
        await use(cache, infos[3])
        assert present(tmp_path / "cache") == ["s0", "s3"]


async def test_a_full_volume_with_nothing_to_evict_is_named_and_nothing_half_written_is_left(tmp_path: Path) -> None:
    objects = Full(tmp_path / "cache", segments_max=0)
    infos = [await stored(objects, tmp_path, f"s{number}") for number in range(2)]
    cache = await opened(objects, tmp_path / "cache")
    async with cache.hold(infos[0]):
        with pytest.raises(Unavailable, match=r"the volume /\S* is full: segment s1 of \d+ bytes does not fit"):
            await use(cache, infos[1])
        assert present(tmp_path / "cache") == ["s0"]
    assert list((tmp_path / "cache" / ".incoming").iterdir()) == []


async def test_two_segments_that_fill_the_volume_together_are_fetched_one_after_the_other(tmp_path: Path) -> None:
    objects = RoomForOne()
    infos = [await stored(objects, tmp_path, f"s{number}") for number in range(2)]
    cache = await opened(objects, tmp_path / "cache")
    await asyncio.gather(*(use(cache, info) for info in infos))
    assert present(tmp_path / "cache") == ["s0", "s1"]


class Impatient(SystemClock):
    """A clock under which nothing is tried again."""

    async def sleep(self, seconds: float) -> None:
        raise AssertionError(f"waited {seconds} s for something that waiting does not mend")


async def test_a_volume_that_is_really_full_costs_what_nobody_uses_and_no_time(
    small_volume: Path, tmp_path: Path
) -> None:
    """Others write to the volume: by the budget there would be room for everything."""
    async with open_directory(tmp_path / "bucket") as bucket:
        infos = [await stored(bucket, tmp_path, f"s{number}", count=2_000) for number in range(3)]
        (small_volume / "others").write_bytes(bytes(VOLUME_BYTES - 5 * size(infos[0]) // 2))
        cache = await opened(RetryingStore(bucket, Impatient()), small_volume / "cache")
        for info in infos:
            await use(cache, info)
        assert present(small_volume / "cache") == ["s1", "s2"]


async def test_a_volume_that_is_really_full_of_what_is_in_use_is_named(small_volume: Path, tmp_path: Path) -> None:
    async with open_directory(tmp_path / "bucket") as bucket:
        infos = [await stored(bucket, tmp_path, f"s{number}", count=2_000) for number in range(2)]
        (small_volume / "others").write_bytes(bytes(VOLUME_BYTES - 3 * size(infos[0]) // 2))
        cache = await opened(RetryingStore(bucket, Impatient()), small_volume / "cache")
        async with cache.hold(infos[0]):
            with pytest.raises(Unavailable, match=f"the volume {small_volume} is full"):
                await use(cache, infos[1])
            assert present(small_volume / "cache") == ["s0"]
            assert list((small_volume / "cache" / ".incoming").iterdir()) == []
        await use(cache, infos[1])  # nobody uses the first any more
