"""Promises 1 to 4 under `kill -9`: what was acknowledged is there, nothing else is, and reads go on; also when Redis
comes back without the end of its file, and, but for what is damaged, with other bytes in it.
"""

import asyncio
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import httpx
import pytest

from compactor.checkpoints import Step
from shared.log.substitutes import Substitutes
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.append_only_file import cut, newest
from tests.cluster.harness import Cluster
from tests.cluster.waiting import wait_until
from tests.faults.kills import ROLES, Killer
from tests.faults.scenario import fault_cluster, run_scenario

pytestmark = pytest.mark.timeout(300)

CUT_BYTES: Final = (30_000, 60_000)
BASE: Final = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture(scope="module")
def kill_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two shards: a batch is there wholly or not at all across both."""
    with fault_cluster(tmp_path_factory.mktemp("faults"), shards=2) as cluster:
        yield cluster


async def test_every_process_can_die_while_writes_and_reads_go_on(kill_cluster: Cluster) -> None:
    async def disturb(killer: Killer) -> None:
        for role in ROLES:
            await killer.one(role)
            await asyncio.sleep(0.3)
        await killer.every_queryworker()

    workload, _ = await run_scenario(kill_cluster, 1, disturb)
    assert workload.outages.reads > 100


async def test_redis_can_die_and_come_back_with_all_that_was_acknowledged(kill_cluster: Cluster) -> None:
    async def disturb(killer: Killer) -> None:
        for _ in range(3):
            await asyncio.sleep(0.7)
            await killer.redis()
        await asyncio.sleep(0.7)

    await run_scenario(kill_cluster, 2, disturb)


async def test_a_compactor_can_die_at_any_step_of_its_job(kill_cluster: Cluster) -> None:
    async def disturb(killer: Killer) -> None:
        not_reached = [step for step in Step if not await killer.compactor_at(step)]
        assert not not_reached

    await run_scenario(kill_cluster, 3, disturb)


async def test_redis_can_lose_the_end_of_its_log_while_those_are_there_who_saw_it(kill_cluster: Cluster) -> None:
    """Its file is cut between two commands, so that nothing looks wrong."""
    put_back: list[float] = []

    async def disturb(killer: Killer) -> None:
        for _ in range(2):
            await asyncio.sleep(1.2)
            lost = killer.chance.randint(*CUT_BYTES)
            await killer.redis(lambda directory: _cut(directory, lost))  # noqa: B023  (called at once)
            await asyncio.sleep(0.5)
        put_back.append(_metric(kill_cluster, "polychrome_logservice_put_back_ops_total"))

    kill_cluster.allow_in_logs('"event":"manifest_given_up"')  # it was begun in an earlier epoch
    await run_scenario(kill_cluster, 4, disturb)
    assert put_back[0] > 0, "the cut took nothing that mattered"


def _cut(directory: Path, lost: int) -> None:
    assert cut(directory, lost) >= lost


def _metric(cluster: Cluster, name: str) -> float:
    """Its sum over the log services."""
    pages = [httpx.get(f"http://{process.admin_address}/metrics").text for process in cluster.role("logservice")]
    found = [line for page in pages for line in page.splitlines() if line.startswith(f"{name} ")]
    return sum(float(line.rpartition(" ")[2]) for line in found)


async def test_bytes_that_change_in_a_log_entry_stop_the_reads_that_need_it_and_nothing_else(
    kill_cluster: Cluster,
) -> None:
    killer = Killer(kill_cluster, random.Random(5))
    for expected in ('"event":"damage_found"', '"event":"compaction_corrupt"', '"code":"damaged"'):
        kill_cluster.allow_in_logs(expected)
    workers = [process.pid for process in kill_cluster.role("queryworker")]
    for process in kill_cluster.role("compactor"):
        process.send(signal.SIGSTOP)  # so that the entries stay in the log
    with httpx.Client(base_url=kill_cluster.url, timeout=20) as client:
        damaged = {name: _collection(client, name) for name in ("flipped text", "flipped offset", "flipped anything")}
        sound = _collection(client, "sound")
        await killer.redis(_flip)
        await asyncio.to_thread(wait_until, lambda: _count(client, sound) == 3, "the sound collection")
        for collection in damaged.values():
            answer = _answer(client, collection)
            assert (answer.status_code, "Stored data damaged" in answer.text) == (500, True), answer.text
            assert f"{collection}/0/log/2-0" in answer.text or f"{collection}/1/log/2-0" in answer.text
        for process in kill_cluster.role("compactor"):
            process.send(signal.SIGCONT)
        assert [process.pid for process in kill_cluster.role("queryworker")] == workers
        assert all(process.running() for process in kill_cluster.processes)
        async with open_redis(kill_cluster.redis.url) as redis:
            for collection in damaged.values():
                for shard in (0, 1):
                    await Substitutes(redis, Keys()).skip(collection, shard, "2-0")
        for collection in damaged.values():
            await asyncio.to_thread(wait_until, lambda c=collection: _count(client, c) == 2, "what is not damaged")


def _collection(client: httpx.Client, name: str) -> str:
    """A new collection of three records, each in an entry of its own."""
    collection = client.post(BASE, json={"name": name.replace(" ", "-")}).raise_for_status().json()["id"]
    for number in range(3):
        record = {"ids": [f"id{number}"], "embeddings": [[1.0, 2.0]], "documents": [f"{name} {number}"]}
        client.post(f"{BASE}/{collection}/add", json=record).raise_for_status()
    return str(collection)


def _answer(client: httpx.Client, collection: str) -> httpx.Response:
    return client.post(f"{BASE}/{collection}/get", json={})


def _count(client: httpx.Client, collection: str) -> int | None:
    answer = client.get(f"{BASE}/{collection}/count")
    return answer.json() if answer.status_code == 200 else None


def _flip(directory: Path) -> None:
    """Changes the second entry of three collections: a byte of a document, an offset of ids, and any byte."""
    path = newest(directory)
    content = bytearray(path.read_bytes())
    text = content.rindex(b"flipped text 1")
    content[text] ^= 1
    ids = content.rindex(b"id1", 0, content.rindex(b"flipped offset 1"))
    # The two offsets of the only id, 0 and 3, lie before its bytes.
    offsets = content.rindex(b"\x00\x00\x00\x00\x03\x00\x00\x00", 0, ids)
    content[offsets + 7] ^= 0x40
    document = content.rindex(b"flipped anything 1")
    content[document - 100] ^= 0x10
    path.write_bytes(content)
