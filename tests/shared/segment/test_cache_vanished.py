"""The segment cache copes with folders that somebody else removed, and with folders that cannot be removed."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path

import pytest

from shared.errors import Unavailable
from shared.segment.cache import SegmentCache
from shared.segment.format import SegmentInfo, verify
from tests.shared.segment.test_cache import Counting, opened, present, size, stored, use


@pytest.fixture
def objects() -> Counting:
    return Counting()


async def full_cache(
    objects: Counting, folder: Path, segments: int, room_for: int
) -> tuple[SegmentCache, list[SegmentInfo]]:
    """A cache that holds the first `room_for` of some segments, all of one size."""
    infos = [await stored(objects, folder, f"s{number}") for number in range(segments)]
    cache = await opened(objects, folder / "cache", room_for * size(infos[0]))
    for info in infos[:room_for]:
        await use(cache, info)
    return cache, infos


@pytest.fixture
def irremovable(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Names of folders that the operating system refuses to rename."""
    names, rename = set[str](), Path.rename

    def refusing(path: Path, target: Path) -> Path:
        if path.name in names:
            raise PermissionError(1, "Operation not permitted", str(path))
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refusing)
    return names


async def test_a_folder_that_somebody_removed_counts_as_removed_when_space_is_needed(
    objects: Counting, tmp_path: Path
) -> None:
    cache, infos = await full_cache(objects, tmp_path, segments=4, room_for=2)
    await asyncio.to_thread(shutil.rmtree, tmp_path / "cache" / "s0")
    for number in (2, 3, 1, 2, 3):
        await use(cache, infos[number])
    assert present(tmp_path / "cache") == ["s2", "s3"]
    assert cache._held_bytes == 2 * size(infos[0])
    assert cache._reserved_bytes == 0


async def test_a_segment_whose_folder_somebody_removed_is_fetched_again(objects: Counting, tmp_path: Path) -> None:
    cache, infos = await full_cache(objects, tmp_path, segments=1, room_for=1)
    await asyncio.to_thread(shutil.rmtree, tmp_path / "cache" / "s0")
    await asyncio.gather(*(use(cache, infos[0]) for _ in range(3)))
    assert present(tmp_path / "cache") == ["s0"]
    assert cache._held_bytes == size(infos[0])
    assert len(objects.downloads) == 2 * len(infos[0].files)


@pytest.mark.parametrize("number", [0, -1])
@pytest.mark.parametrize("is_cut", [False, True])
async def test_a_segment_of_which_somebody_removed_or_cut_a_file_is_fetched_again(
    objects: Counting, tmp_path: Path, number: int, is_cut: bool
) -> None:
    cache, (info,) = await full_cache(objects, tmp_path, segments=1, room_for=1)
    path = tmp_path / "cache" / "s0" / info.files[number].name
    if is_cut:
        os.truncate(path, info.files[number].bytes // 2)
    else:
        path.unlink()
    for _ in range(2):
        async with cache.hold(info) as folder:
            verify(folder, info)
    assert cache._held_bytes == size(info)
    assert len(objects.downloads) == 2 * len(info.files)


async def test_a_cache_whose_whole_directory_was_removed_fills_again(objects: Counting, tmp_path: Path) -> None:
    cache, infos = await full_cache(objects, tmp_path, segments=4, room_for=2)
    await asyncio.to_thread(shutil.rmtree, tmp_path / "cache")
    for info in (infos[2], infos[3], infos[0]):
        await use(cache, info)
    assert present(tmp_path / "cache") == ["s0", "s3"]


async def test_in_place_of_a_folder_that_cannot_be_removed_the_next_one_goes(
    objects: Counting, tmp_path: Path, irremovable: set[str]
) -> None:
    cache, infos = await full_cache(objects, tmp_path, segments=4, room_for=2)
    irremovable.add("s0")
    await use(cache, infos[2])
    await use(cache, infos[3])
    assert present(tmp_path / "cache") == ["s0", "s3"]
    irremovable.clear()
    await use(cache, infos[1])
    assert present(tmp_path / "cache") == ["s1", "s3"]


async def test_while_no_folder_can_be_removed_segments_are_fetched_beyond_the_budget(
    objects: Counting, tmp_path: Path, irremovable: set[str]
) -> None:
    cache, infos = await full_cache(objects, tmp_path, segments=3, room_for=1)
    irremovable.add("s0")
    async with cache.hold(infos[1]):
        irremovable.add("s1")
        await use(cache, infos[2])
    assert present(tmp_path / "cache") == ["s0", "s1"]
    assert cache._held_bytes == 2 * size(infos[0])


async def test_a_folder_that_cannot_be_taken_over_stays_and_the_disk_is_said_to_fail(
    objects: Counting, tmp_path: Path, irremovable: set[str]
) -> None:
    cache = await opened(objects, tmp_path / "cache")
    info = await stored(objects, tmp_path, "s1")
    irremovable.add("s1")
    with pytest.raises(Unavailable, match="the local disk"):
        await cache.adopt(info, tmp_path / "s1")
    assert (tmp_path / "s1").is_dir()
    assert cache._held_bytes == 0
    await use(cache, info)
