"""The contract of `shared.objects.port`, on every implementation."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from shared.objects.open import verify_conditional_create
from shared.objects.port import ObjectNotFound, ObjectStore, VolumeFull
from tests.small_volume import VOLUME_BYTES, small_volume

__all__ = ["small_volume"]


async def keys(store: ObjectStore, prefix: str = "") -> list[str]:
    return [info.key async for info in store.list(prefix)]


async def test_what_was_put_is_read_whole_and_by_range(store: ObjectStore) -> None:
    await store.put("a/b/c", b"0123456789")
    assert await store.get("a/b/c") == b"0123456789"
    assert await store.get_range("a/b/c", 2, 5) == b"234"
    assert await store.get_range("a/b/c", 8, 100) == b"89"
    assert await store.get_range("a/b/c", 10, 11) == b""


async def test_put_replaces(store: ObjectStore) -> None:
    await store.put("k", b"old and longer")
    await store.put("k", b"new")
    assert await store.get("k") == b"new"


async def test_empty_objects_exist(store: ObjectStore) -> None:
    await store.put("empty", b"")
    assert await store.get("empty") == b""
    assert not await store.create("empty", b"x")


async def test_files_travel_both_ways(store: ObjectStore, tmp_path: Path) -> None:
    content = np.random.default_rng(1).bytes(20 * 1024 * 1024 + 3)
    (tmp_path / "up").write_bytes(content)
    await store.put("big/file", tmp_path / "up")
    await store.download("big/file", tmp_path / "down")
    assert (tmp_path / "down").read_bytes() == content
    assert await store.get_range("big/file", 17_000_000, 17_000_100) == content[17_000_000:17_000_100]
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["down", "up"]  # noqa: ASYNC240


async def test_a_download_onto_a_full_volume_says_so_and_leaves_nothing(store: ObjectStore, small_volume: Path) -> None:
    await store.put("big", bytes(VOLUME_BYTES // 2 + 1))
    await store.download("big", small_volume / "first")
    with pytest.raises(VolumeFull):
        await store.download("big", small_volume / "second")
    assert [path.name for path in small_volume.iterdir()] == ["first"]  # noqa: ASYNC240


async def test_a_missing_object_is_told_apart_from_a_missing_store(store: ObjectStore, tmp_path: Path) -> None:
    for read in (store.get("no"), store.get_range("no", 0, 1), store.download("no", tmp_path / "file")):
        with pytest.raises(ObjectNotFound):
            await read
    assert not (tmp_path / "file").exists()


async def test_create_refuses_what_exists_and_keeps_it(store: ObjectStore) -> None:
    assert await store.create("root", b"first")
    assert not await store.create("root", b"second")
    assert await store.get("root") == b"first"


async def test_one_of_sixteen_racing_creators_wins(store: ObjectStore) -> None:
    for round_number in range(4):
        key = f"race/{round_number}"
        won = await asyncio.gather(*(store.create(key, b"writer %d" % writer) for writer in range(16)))
        assert won.count(True) == 1
        assert await store.get(key) == b"writer %d" % won.index(True)


async def test_a_deleted_name_can_be_created_again(store: ObjectStore) -> None:
    assert await store.create("x/y", b"1")
    await store.delete(["x/y", "x/never-was"])
    with pytest.raises(ObjectNotFound):
        await store.get("x/y")
    assert await store.create("x/y", b"2")


async def test_list_gives_keys_in_order_with_sizes_and_takes_any_prefix(store: ObjectStore) -> None:
    for key in ("a/2", "a/10", "ab", "b/1/z", "a.b/c"):
        await store.put(key, key.encode())
    assert await keys(store) == ["a.b/c", "a/10", "a/2", "ab", "b/1/z"]
    assert await keys(store, "a") == ["a.b/c", "a/10", "a/2", "ab"]
    assert await keys(store, "a/") == ["a/10", "a/2"]
    assert await keys(store, "a/1") == ["a/10"]
    assert await keys(store, "nothing/") == []
    [info] = [info async for info in store.list("b/")]
    assert info.bytes == 5
    assert info.modified_s > 0


async def test_lists_longer_than_a_page(store: ObjectStore) -> None:
    expected = [f"many/{number:04d}" for number in range(1100)]
    for start in range(0, len(expected), 50):
        await asyncio.gather(*(store.put(key, b"x") for key in expected[start : start + 50]))
    assert await keys(store, "many/") == expected
    await store.delete(expected)
    assert await keys(store, "many/") == []


@pytest.mark.parametrize("key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".hidden", "a/.b", "a b", "a\n", "ä"])
async def test_keys_outside_the_alphabet_are_refused(store: ObjectStore, key: str) -> None:
    with pytest.raises(ValueError, match="not an object key"):
        await store.put(key, b"")
    with pytest.raises(ValueError, match="not an object key"):
        await store.get(key)


async def test_a_fit_store_passes_the_start_up_check_and_keeps_no_trace(store: ObjectStore) -> None:
    await verify_conditional_create(store)
    assert await keys(store) == []
