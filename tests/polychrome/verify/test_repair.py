"""What `polychrome repair` repairs, what it leaves, and that it does nothing unless it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from polychrome.backup.archive import Archive
from polychrome.backup.model import encode_page
from polychrome.verify.commands import Verified
from polychrome.verify.repair import Remedy, Repairer, RepairStores
from polychrome.verify.repair_commands import Repaired, repair
from shared.catalog.damage import Damages
from shared.errors import Damaged
from shared.log.jobs import Jobs
from shared.log.state import FIRST_ID
from shared.manifest.store import ManifestStore
from shared.objects.directory import open_directory
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.redis.keys import Keys
from tests.polychrome.verify.small_cluster import DIMENSION, SmallCluster, small_cluster
from tests.polychrome.verify.test_verify import flip, objects_of, one_of_every_kind, put_entry
from tests.redis_server import RedisServer
from tests.shared.log.appending import make_collection


async def repaired(
    cluster: SmallCluster, copies: ObjectStore | None = None, *, yes: bool = True, skip: bool = False
) -> Repaired:
    """What a repair does, with a compactor at work beside it."""
    stores = RepairStores(cluster.objects, cluster.redis, cluster.keys, copies)
    repairer = Repairer(stores, cluster.folder, SystemClock(), skip=skip)
    place = Verified(cluster.objects, cluster.redis, cluster.keys)
    async with compacting(cluster):
        return await repair(place, repairer, cluster.folder, yes=yes, wait_s=20.0)


@contextlib.asynccontextmanager
async def compacting(cluster: SmallCluster) -> AsyncIterator[None]:
    jobs = Jobs(cluster.redis, cluster.keys)

    async def work() -> None:
        while True:
            job = await jobs.claim("me", 60.0)
            if job is None:
                await asyncio.sleep(0.02)
                continue
            with contextlib.suppress(Exception):  # records without a copy, for instance
                await cluster.compactor().compact(job.collection_id, job.shard)
            await jobs.finish(job, "me")

    task = asyncio.create_task(work())
    try:
        yield
    finally:
        task.cancel()


async def newest_file(cluster: SmallCluster, pattern: str) -> Path:
    """The file that fits the pattern and is of the newest segment."""
    return await asyncio.to_thread(lambda: max(cluster.bucket.glob(pattern)))


@contextlib.asynccontextmanager
async def copy_of_bucket(cluster: SmallCluster) -> AsyncIterator[ObjectStore]:
    await asyncio.to_thread(shutil.copytree, cluster.bucket, cluster.folder / "copies")
    async with open_directory(cluster.folder / "copies") as copies:
        yield copies


async def test_every_flip_in_the_bucket_is_repaired_and_then_answers_are_what_they_were(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path) as cluster, copy_of_bucket(cluster) as copies:
        chance = random.Random(7)
        for path in one_of_every_kind(await asyncio.to_thread(objects_of, cluster)):
            name = path.relative_to(cluster.bucket).as_posix()
            if not path.exists() or "/segments/" in name:
                continue  # segments: below
            await asyncio.to_thread(flip, path, chance)
            done = await repaired(cluster, copies)
            assert not done.damaged, name
            assert {step.remedy for step in done.steps} <= {Remedy.COPY}
            assert await cluster.read() == cluster.truth
        found = [finding for finding in (await cluster.verify()).findings if finding.current]
        assert found == []


@pytest.mark.parametrize("with_copies", [True, False])
async def test_files_of_segments_are_rewritten_or_put_back(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, *, with_copies: bool
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path) as cluster, copy_of_bucket(cluster) as copies:
        kinds = ("graph.hnsw",) if with_copies else ("graph.hnsw", "ids.index", "metadata.index", "text.index")
        for kind in kinds:
            newest = await newest_file(cluster, f"*/0/segments/*/{kind}")
            await asyncio.to_thread(flip, newest, random.Random(kind))
            planned = await repaired(cluster, copies if with_copies else None, yes=False)
            assert [step.remedy for step in planned.steps] == [Remedy.COPY if with_copies else Remedy.REWRITE]
            assert planned.damaged
            assert not planned.done
            assert not any(step.done for step in planned.steps)
            done = await repaired(cluster, copies if with_copies else None)
            assert [step.done for step in done.steps] == [True]
            assert not done.damaged
            assert await cluster.read() == cluster.truth
            assert await Damages(cluster.redis, cluster.keys).all() == []


async def test_a_bucket_that_was_lost_whole_is_put_back_from_a_copy_in_one_go(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster, copy_of_bucket(cluster) as copies:
        for path in await asyncio.to_thread(objects_of, cluster):
            if "/manifests/" in str(path) or "/segments/" in str(path):
                await asyncio.to_thread(path.unlink)
        done = await repaired(cluster, copies)
        assert not done.damaged
        names = [step.finding.name for step in done.steps]
        assert any("/manifests/" in name for name in names)
        assert any(name.endswith("/records.arrow") for name in names), "it shows once the manifests are back"
        assert await cluster.read() == cluster.truth


async def test_records_without_a_copy_stay_damaged_and_what_is_lost_is_said(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        newest = await newest_file(cluster, "*/1/segments/*/records.arrow")
        data = await asyncio.to_thread(newest.read_bytes)
        changed = data.replace(b"text 2 of more-", b"text 3 of more-", 1)
        await asyncio.to_thread(newest.write_bytes, changed)
        stores = RepairStores(cluster.objects, cluster.redis, cluster.keys, None)
        repairer = Repairer(stores, cluster.folder, SystemClock(), skip=True)
        place = Verified(cluster.objects, cluster.redis, cluster.keys)
        done = await repair(place, repairer, cluster.folder, yes=True, wait_s=0.5)
        assert done.damaged
        [step] = done.steps
        assert (step.remedy, step.done) == (Remedy.REWRITE, False)
        assert step.lost.startswith("1 records: more-")
        with pytest.raises(Damaged):
            await cluster.read()
        async with open_directory(tmp_path / "one") as copies:
            await copies.put(f"files/{newest.relative_to(cluster.bucket).as_posix()}", data)  # as a backup has it
            assert not (await repaired(cluster, copies)).damaged
        assert await cluster.read() == cluster.truth


async def test_a_damaged_entry_is_put_back_from_a_backup_or_skipped_when_that_is_asked_for(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        async with open_directory(tmp_path / "backup") as copies:
            for shard in (0, 1):
                read = await cluster.log.read(cluster.collection.id, shard, FIRST_ID)
                page = encode_page(read.entries)
                first, last = read.entries[0].first, read.entries[-1].first
                await Archive(copies).keep_page(cluster.collection.id, shard, first, last, page)
            key, id_, fields = (await cluster.entries())[1]
            await put_entry(cluster, key, id_, {**fields, b"d": b"x" + fields[b"d"][1:]})
            assert [step.remedy for step in (await repaired(cluster, yes=False)).steps] == [Remedy.NOTHING]
            left = await repaired(cluster)
            assert left.damaged
            assert "operations among the positions" in left.steps[0].lost
            done = await repaired(cluster, copies)
            assert [(step.remedy, step.outcome) for step in done.steps] == [(Remedy.COPY_ENTRY, "put back")]
            assert not done.damaged
            assert await cluster.read() == cluster.truth
        key, id_, fields = (await cluster.entries())[-1]
        await put_entry(cluster, key, id_, {**fields, b"n": b"77"})
        done = await repaired(cluster, skip=True)
        assert [step.remedy for step in done.steps] == [Remedy.SKIP_ENTRY]
        assert "operations are lost among positions" in done.steps[0].outcome
        assert not done.damaged
        found = await cluster.read()
        assert found.keys() == cluster.truth.keys(), "what the entry replaced is there as it was before"
        assert found != cluster.truth


async def test_a_damaged_segment_that_forks_name_too_is_rewritten_for_each_of_them(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        manifests, log = ManifestStore(cluster.objects), cluster.log
        fork = await make_collection(cluster.catalog, cluster.database, "fork", shards=2)
        await log.fix_dimension(fork.id, DIMENSION)
        for shard in (0, 1):
            [state] = await log.states([(cluster.collection.id, shard)])
            assert state is not None
            assert state.pointer is not None
            origin = await manifests.load(cluster.collection.id, shard, state.pointer)
            first = msgspec.structs.replace(origin, collection=fork.id, version=1, parent=None, covers=1)
            pointer = await manifests.create(first)
            assert pointer is not None
            assert await log.commit(fork.id, shard, None, pointer, 0)
        assert not (await cluster.verify()).damaged
        await asyncio.to_thread(flip, await newest_file(cluster, "*/0/segments/*/ids.index"), random.Random(1))
        [finding] = [finding for finding in (await cluster.verify()).findings if finding.current]
        assert set(finding.shards) == {(cluster.collection.id, 0), (fork.id, 0)}
        done = await repaired(cluster)
        assert [step.outcome for step in done.steps] == ["was rewritten"]
        assert not done.damaged
        assert await cluster.read() == cluster.truth
