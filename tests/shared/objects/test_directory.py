from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from shared.errors import Unavailable
from shared.objects import directory
from shared.objects.directory import TEMPORARY_AGE_MAX_S, open_directory
from shared.process.disk import sync_folder
from tests.mounts import Mount, mount

__all__ = ["mount"]

RACER = """
import asyncio, sys
from pathlib import Path
from shared.objects.directory import open_directory

async def main(root, name):
    async with open_directory(Path(root)) as store:
        print("ready", flush=True)
        sys.stdin.readline()
        won = [number for number in range(50) if await store.create(f"folder/{number % 7}/{number}", name.encode())]
    print(*won)

asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


async def test_racing_processes_create_every_object_once(tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(  # noqa: ASYNC220 (nothing else runs in this test)
            [sys.executable, "-c", RACER, str(tmp_path / "bucket"), f"racer {number}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3],
        )
        for number in range(4)
    ]  # fmt: skip
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    won = {number: [int(text) for text in racer.communicate()[0].split()] for number, racer in enumerate(racers)}
    assert sorted(number for numbers in won.values() for number in numbers) == list(range(50))
    async with open_directory(tmp_path / "bucket") as store:
        for winner, numbers in won.items():
            for number in numbers:
                assert await store.get(f"folder/{number % 7}/{number}") == f"racer {winner}".encode()


async def test_deleting_the_last_object_of_a_folder_never_loses_a_new_one(tmp_path: Path) -> None:
    async with open_directory(tmp_path / "bucket") as store:

        async def churn(name: str) -> None:
            for _ in range(60):
                assert await store.create(f"a/b/{name}", name.encode())
                await store.delete([f"a/b/{name}"])

        await asyncio.gather(*(churn(f"n{number}") for number in range(4)))
        assert [info async for info in store.list("")] == []
        assert [path.name for path in (tmp_path / "bucket").iterdir()] == [".temporary"]


async def test_a_directory_that_went_away_is_unavailable_and_looks_empty_to_nobody(tmp_path: Path) -> None:
    async with open_directory(tmp_path / "bucket") as store:
        await store.put("a", b"1")
        shutil.rmtree(tmp_path / "bucket")
        with pytest.raises(Unavailable):
            await store.get("a")
        with pytest.raises(Unavailable):
            await store.put("a", b"2")
        with pytest.raises(Unavailable):
            [info async for info in store.list("")]


async def test_a_download_into_a_missing_folder_does_not_claim_that_the_object_is_missing(tmp_path: Path) -> None:
    async with open_directory(tmp_path / "bucket") as store:
        await store.put("a", b"1")
        with pytest.raises(Unavailable):
            await store.download("a", tmp_path / "nowhere" / "file")


async def test_what_dead_writers_left_is_hidden_and_removed_after_a_day(tmp_path: Path) -> None:
    root = tmp_path / "bucket"
    async with open_directory(root):
        pass
    old, young = root / ".temporary" / "old", root / ".temporary" / "young"
    old.write_bytes(b"half")
    young.write_bytes(b"half")
    long_ago = old.stat().st_mtime - TEMPORARY_AGE_MAX_S - 60
    os.utime(old, (long_ago, long_ago))
    async with open_directory(root) as store:
        assert [info async for info in store.list("")] == []
    assert not old.exists()
    assert young.exists()


async def test_a_path_that_cannot_be_a_directory_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(Unavailable):
        async with open_directory(tmp_path / "file" / "bucket"):
            pass


async def test_the_name_of_a_folder_is_synced_once_for_as_long_as_the_folder_lasts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that was removed and made again is another one, whoever removed it."""
    root = tmp_path / "bucket"
    synced: list[Path] = []
    sync = sync_folder

    def noting(folder: Path) -> None:
        sync(folder)
        synced.append(folder)

    monkeypatch.setattr(directory, "sync_folder", noting)
    whole = [root / "a" / "b", root / "a", root]

    async def syncs_of(key: str) -> list[Path]:
        synced.clear()
        assert await store.create(key, b"")
        return list(synced)

    async with open_directory(root) as store, open_directory(root) as other:
        assert await syncs_of("a/b/1") == whole
        assert await syncs_of("a/b/2") == [root / "a" / "b"]
        await other.delete(["a/b/1", "a/b/2"])
        assert not (root / "a").exists()
        assert await syncs_of("a/b/3") == whole
        assert await syncs_of("a/b/4") == [root / "a" / "b"]
        await asyncio.gather(*(store.create(f"folder{number}/x", b"") for number in range(40)))
        assert await syncs_of("a/b/5") == whole  # not held any more


async def test_objects_that_are_deleted_together_sync_their_folder_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_directory(tmp_path / "bucket") as store:
        keys = [f"a/{number}" for number in range(20)]
        for key in [*keys, "a/kept"]:
            assert await store.create(key, b"")
        synced: list[Path] = []
        monkeypatch.setattr(directory, "sync_folder", synced.append)
        await store.delete(keys)
        assert synced == [tmp_path / "bucket" / "a"]
        assert [info.key async for info in store.list("")] == ["a/kept"]


async def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path: Path, mount: Mount) -> None:
    root = mount(tmp_path / "volume", 1) / "bucket"
    async with open_directory(root) as store:
        await store.put("first", bytes(600 * 1024))
        with pytest.raises(Unavailable, match=re.escape(f"the disk of {root} is full (0.4 of 1 MiB free on")):
            await store.create("second", bytes(600 * 1024))
        assert [info.key async for info in store.list("")] == ["first"]
        await store.delete(["first"])
        assert await store.create("second", bytes(600 * 1024))
