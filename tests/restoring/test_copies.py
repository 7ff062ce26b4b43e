"""What is restored of copies that were made while the cluster ran: of Redis first, of the bucket second, piece by piece
(docs/operations.md, "Backup and restore"). And of a bucket alone, and of one with damage.
"""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import pytest

from shared.manifest.roots import RootStore
from shared.segment.format import RECORDS
from tests.restoring.bank import ACCOUNTS, BALANCE, Bank


async def work(bank: Bank, chance: random.Random, steps: int) -> None:
    for _ in range(steps):
        await bank.step(chance, [])


async def copy_slowly(bank: Bank, chance: random.Random, to: Path) -> None:
    """Copies the bucket while the bank goes on: folder by folder, in no order, as `cp -r` or `rsync` may."""
    source = bank.folder / "bucket"
    folders = await asyncio.to_thread(lambda: [path for path in source.rglob("*") if path.is_dir()])
    for folder in chance.sample([source, *folders], len(folders) + 1):
        await asyncio.to_thread(_copy_files, folder, to / folder.relative_to(source))
        await work(bank, chance, chance.randint(0, 3))


def _copy_files(folder: Path, to: Path) -> None:
    to.mkdir(parents=True, exist_ok=True)
    for path in folder.iterdir() if folder.exists() else ():
        if path.is_file():
            shutil.copy2(path, to / path.name)


def _replace(bucket: Path, copy: Path) -> None:
    shutil.rmtree(bucket)
    shutil.copytree(copy, bucket)


@pytest.mark.parametrize("seed", range(2))
async def test_a_running_backup_restores_to_a_state_that_the_bank_had(bank: Bank, tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    await bank.found(3)
    bank.garbage_kept_s = 900.0  # as the manual says: both copies together take less than the retention
    for round_ in range(2):
        await work(bank, chance, 30)
        redis, bucket = bank.copy_redis(), tmp_path / f"bucket-{round_}"
        await copy_slowly(bank, chance, bucket)
        await asyncio.to_thread(bank.server.kill)
        await asyncio.to_thread(_replace, tmp_path / "bucket", bucket)
        await bank.go_back(redis, root_known=False)
        assert sum((await bank.read()).values()) == BALANCE * len(ACCOUNTS)


async def test_a_root_that_names_what_is_not_there_gives_way_to_the_one_before(bank: Bank) -> None:
    chance = random.Random(7)
    bank.garbage_kept_s = 900.0
    await bank.found(2)
    positions = []
    for _ in range(2):
        await bank.transfer(chance)
        while shards := await bank.round():
            for shard in shards:
                await bank.compact(shard)
        positions.append((await bank.refresh()).root_position)
    root = await RootStore(bank.objects).newest(bank.collection.id)
    assert root is not None
    assert root.position == positions[-1]
    [lost, *_] = [info.key async for info in bank.objects.list(root.collection) if info.key.endswith(RECORDS)][-1:]
    await bank.objects.delete([lost])
    await asyncio.to_thread(bank.server.lose_everything)
    await bank.restore(root_known=False)
    report = await bank.images.read_report()
    assert report is not None
    [missing] = report["missing"]
    assert (missing["taken"], missing["one_moment"]) == ("root", True)
    assert missing["covered"] == [positions[0]] * 2
    assert lost in missing["damaged"]
