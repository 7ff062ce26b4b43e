"""Whatever byte of a bucket or a log is flipped: verify names it, and no read takes it for true."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from polychrome.verify.model import Finding
from shared.catalog.damage import DamageKind
from shared.errors import Damaged
from shared.log.naming import entry_name
from shared.redis.client import command
from shared.redis.keys import Keys
from tests.polychrome.verify.small_cluster import SmallCluster, small_cluster
from tests.redis_server import RedisServer

FLIPS = 10
"""Random flips beside one in every kind of object."""


def objects_of(cluster: SmallCluster) -> list[Path]:
    """Every object that has content: marks of commits have none that counts."""
    found = sorted(path for path in cluster.bucket.rglob("*") if path.is_file() and path.stat().st_size)
    return [path for path in found if path.relative_to(cluster.bucket).parts[0] not in ("commits", ".temporary")]


def one_of_every_kind(paths: list[Path]) -> Iterator[Path]:
    def kind(path: Path) -> str:
        return path.name if path.suffix in (".arrow", ".index", ".hnsw", ".codes") else f"{path.parent.name}/"

    for _, group in itertools.groupby(sorted(paths, key=kind), kind):
        yield next(group)


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


async def test_a_whole_cluster_is_whole(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path) as cluster:
        assert await cluster.read() == cluster.truth
        for redis in (True, False):
            report = await cluster.verify(redis=redis)
            assert report.findings == []
            assert report.orphans == []
            assert not report.damaged
            assert report.counts["shards"] == 2
            assert report.counts["roots"] == report.counts["snapshots"] == report.counts["journal entries"] == 1
            assert report.counts["sealed log objects"] == 4
            assert report.counts["bytes"] >= sum(path.stat().st_size for path in objects_of(cluster))
            if redis:
                assert report.counts["entries"] == len(await cluster.entries()) > 0
                assert report.counts["pointers"] == 2


async def test_every_flipped_byte_of_the_bucket_is_found_and_none_is_served(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path) as cluster:
        chance = random.Random(20261130)
        paths = await asyncio.to_thread(objects_of, cluster)
        chosen = [*one_of_every_kind(paths), *chance.choices(paths, k=FLIPS)]
        assert {path.name for path in chosen} >= {"records.arrow", "graph.hnsw", "vectors.codes", "ids.index"}
        for number, path in enumerate(chosen):
            before = await asyncio.to_thread(path.read_bytes)
            await asyncio.to_thread(flip, path, chance)
            name = path.relative_to(cluster.bucket).as_posix()
            report = await cluster.verify(redis=number % 2 == 0)
            assert [finding.name for finding in report.findings] == [name]
            try:
                assert await cluster.read() == cluster.truth
            except Damaged as error:
                assert name in error.message  # noqa: PT017
                assert report.damaged
            await asyncio.to_thread(path.write_bytes, before)
        assert (await cluster.verify()).findings == []


async def test_every_flipped_byte_of_a_log_entry_is_found_and_none_is_served(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        chance = random.Random(20261130)
        for key, id_, fields in (await cluster.entries())[1:2]:
            for field in fields:
                value = fields[field]
                if not value:
                    continue
                place = chance.randrange(len(value))
                changed = value[:place] + bytes([value[place] ^ 1]) + value[place + 1 :]
                await put_entry(cluster, key, id_, {**fields, field: changed})
                report = await cluster.verify()
                shard = int(key.rpartition(":")[2])
                assert entry_name(cluster.collection.id, shard, id_) in {finding.name for finding in report.findings}
                assert report.damaged
                with pytest.raises(Damaged, match=f"{cluster.collection.id}/{shard}/log"):
                    await cluster.read()
                await put_entry(cluster, key, id_, fields)
        assert (await cluster.verify()).findings == []
        assert await cluster.read() == cluster.truth


async def put_entry(cluster: SmallCluster, key: str, id_: str, fields: dict[bytes, bytes]) -> None:
    """Puts an entry in the place of the one that has this id. A stream takes none that is older than its newest."""
    entries = await command(cluster.redis, "XRANGE", key, "-", "+")
    await command(cluster.redis, "DEL", key)
    for each, its_fields in entries:
        pairs = fields if each.decode() == id_ else its_fields
        await command(cluster.redis, "XADD", key, each, *(part for pair in pairs.items() for part in pair))


async def test_what_is_missing_is_named(valkey_server: RedisServer, keys: Keys, tmp_path: Path) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        paths = await asyncio.to_thread(objects_of, cluster)
        for path in one_of_every_kind([path for path in paths if "catalog" not in path.parts]):
            before = await asyncio.to_thread(path.read_bytes)
            await asyncio.to_thread(path.unlink)
            name = path.relative_to(cluster.bucket).as_posix()
            found = [finding.name for finding in (await cluster.verify()).findings]
            assert found in ([name], []), "nothing misses what is of the past alone"
            if found == []:
                assert name.split("/")[-2] in ("manifests", "roots", "log")
            await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
            await asyncio.to_thread(path.write_bytes, before)
        (stream, id_, _), *_ = await cluster.entries()
        await command(cluster.redis, "XDEL", stream, id_)
        report = await cluster.verify()
        assert report.damaged
        assert {finding.kind for finding in report.findings} == {DamageKind.ENTRY}
        await command(cluster.redis, "DEL", keys.state(cluster.collection.id))
        report = await cluster.verify()
        assert [finding.name for finding in report.findings] == [f"{cluster.collection.id}/state"]


@pytest.mark.parametrize("field", ["m:0", "m:1", "head", "layout", "config", "tail:0", "dim"])
async def test_a_damaged_field_of_a_state_is_found(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, field: str
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        state = keys.state(cluster.collection.id)
        value = await command(cluster.redis, "HGET", state, field)
        for changed in (b"", b"x", b"{}", value[:-1]):
            await command(cluster.redis, "HSET", state, field, changed)
            report = await cluster.verify()
            assert report.damaged or (field, changed) == ("dim", value[:-1]), changed
        await command(cluster.redis, "HSET", state, field, value)
        assert (await cluster.verify()).findings == []


async def test_records_that_are_not_what_was_written_are_named_by_their_ids(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        paths = await asyncio.to_thread(objects_of, cluster)
        for path in paths:
            data = await asyncio.to_thread(path.read_bytes)
            if path.name == "records.arrow" and b"text 1 of id-7" in data:
                changed = data.replace(b"text 1 of id-7", b"TEXT 1 of id-7", 1)
                await asyncio.to_thread(path.write_bytes, changed)
        found: list[Finding] = (await cluster.verify()).findings
        assert {tuple(finding.lost_ids) for finding in found if finding.current} == {("id-7",)}
        assert {finding.lost_rows for finding in found} == {1}


async def test_objects_that_nothing_names_are_orphans_and_no_damage(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        segment, stranger = f"{cluster.collection.id}/0/segments/another", "unknown/0/manifests/1"
        for key in (f"{segment}/ids.index", f"{segment}/records.arrow", stranger):
            await cluster.objects.put(key, b"12345")
        report = await cluster.verify()
        assert not report.damaged
        assert (report.orphans, report.orphan_objects, report.orphan_bytes) == ([segment, "unknown"], 3, 15)


async def test_a_sample_reads_some_segments_and_everything_else(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path
) -> None:
    async with small_cluster(valkey_server.url, keys, tmp_path, rows=30) as cluster:
        whole = await cluster.verify()
        none = await cluster.verify(share=1e-9)
        assert none.counts["manifests"] == whole.counts["manifests"] > 0
        assert none.counts.get("segments", 0) == 0 < whole.counts["segments"]
        assert none.sampled < 1 == whole.sampled
