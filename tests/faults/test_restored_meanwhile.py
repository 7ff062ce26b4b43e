"""What is lost, and restored, while processes sleep or go on."""

import asyncio
import shutil
import signal
import time
from collections.abc import Iterator
from typing import Any, Final

import httpx
import pytest

from polychrome.local.process import Process
from polychrome.local.redis_server import answers
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.waiting import wait_until
from tests.faults.scenario import ENVIRON

pytestmark = pytest.mark.timeout(120)

PAUSE_S: Final = 1.0
RECOVERED_S_MAX: Final = 15.0
"""Longest time until a collection that lost its state is back, in seconds; it takes two."""
BASE: Final = "/api/v2/tenants/default_tenant/databases/default_database/collections"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    pause = {"POLYCHROME_COMPACTOR_PAUSE_AT": f"uploaded:{PAUSE_S}", "POLYCHROME_LOG_LEVEL": "debug"}
    nobody_remembers = {"POLYCHROME_FRONTEND_WITNESS_S": "0.001", "POLYCHROME_QUERYWORKER_WITNESS_S": "0.001"}
    environ = {**ENVIRON, **pause, **nobody_remembers}
    with ClusterBuilder(tmp_path_factory.mktemp("restored"), environ=environ).start() as running:
        yield running


class Bank:
    """Accounts in a collection: a record each, its balance in its metadata."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self._client = client
        self._id = ""
        self.id = self._id = self._call("", {"name": name})["id"]

    def _call(self, path: str, body: dict[str, Any] | None = None) -> Any:
        path = f"{BASE}/{self._id}{path}" if self._id else BASE
        answer = self._client.get(path) if body is None else self._client.post(path, json=body)
        answer.raise_for_status()
        return answer.json()

    def set(self, **balances: int) -> None:
        self._call("/upsert", _records(balances))

    def balances(self) -> dict[str, int]:
        found = self._call("/get", {"include": ["metadatas"]})
        return {id_: data["balance"] for id_, data in zip(found["ids"], found["metadatas"], strict=True)}

    def transact(self, expected: dict[str, int], **balances: int) -> None:
        """Sets these balances, in a transaction that has read the `expected` ones."""
        read = self._call("/conditional/get", {"ids": sorted(expected), "include": ["metadatas"]})
        assert dict(zip(read["ids"], (data["balance"] for data in read["metadatas"]), strict=True)) == expected
        operations = [{"operation": "upsert", "payload": _records(balances)}]
        body = {"read_token": read["read_token"], "read_ids": sorted(expected), "operations": operations}
        self._call("/conditional/commit", body)

    def indexed(self) -> bool:
        return not self._call("/indexing_status")["num_unindexed_ops"]


def _records(balances: dict[str, int]) -> dict[str, Any]:
    return {
        "ids": list(balances),
        "embeddings": [[1.0, 2.0]] * len(balances),
        "metadatas": [{"balance": balance} for balance in balances.values()],
    }


def _log_of(process: Process, offset: int = 0) -> str:
    return process.log_path.read_bytes()[offset:].decode()


async def _lose_redis(cluster: Cluster) -> None:
    cluster.redis.kill()
    shutil.rmtree(cluster.directory / "redis" / "appendonlydir")
    cluster.redis.process.start()
    await asyncio.to_thread(wait_until, lambda: answers(cluster.redis.url), "an answering Redis server")


async def test_a_stopped_compactor_does_not_bring_back_what_was_lost(cluster: Cluster) -> None:
    """A transfer that was lost was made again by other means; with both of them, a bank of 300 would hold 330."""
    [compactor], [logservice] = cluster.role("compactor"), cluster.role("logservice")
    with httpx.Client(base_url=cluster.url, timeout=20) as client:
        bank = Bank(client, "bank")
        bank.set(a=150, b=150)
        await asyncio.to_thread(wait_until, bank.indexed, "compacted")
        await asyncio.to_thread(wait_until, lambda: '"collections":1' in _log_of(logservice), "a snapshot")
        logged = compactor.log_path.stat().st_size
        bank.transact({"a": 150, "b": 150}, a=120, b=180)
        await asyncio.to_thread(wait_until, lambda: '"uploaded"' in _log_of(compactor, logged), "an upload")
        compactor.send(signal.SIGSTOP)
        try:
            await _lose_redis(cluster)
            await asyncio.to_thread(wait_until, bank.balances, "readable again")
            bank.transact({"a": 150, "b": 150}, a=120, c=30)
            time.sleep(PAUSE_S)  # noqa: ASYNC251 (so that the compactor goes on at once)
        finally:
            compactor.send(signal.SIGCONT)
        await asyncio.to_thread(wait_until, bank.indexed, "compacted again")
        cluster.restart("queryworker-1")  # so that it reads what the bucket says
        await asyncio.to_thread(wait_until, bank.balances, "readable again")
        assert bank.balances() == {"a": 120, "b": 150, "c": 30}
        assert '"superseded"' in _log_of(compactor, logged), "the stopped compaction ended without effect"


async def test_a_state_that_redis_lost_alone_is_unavailable_for_a_moment_and_then_whole(cluster: Cluster) -> None:
    """It was 404 for good, and the collection still listed."""
    cluster.allow_in_logs("state_restored")
    with httpx.Client(base_url=cluster.url, timeout=20) as client:
        bank = Bank(client, "another-bank")
        bank.set(a=150, b=150)
        await asyncio.to_thread(wait_until, bank.indexed, "compacted")
        bank.set(c=30)
        async with open_redis(cluster.redis.url) as redis:
            await redis.delete(Keys().state(bank.id))
        with pytest.raises(httpx.HTTPStatusError) as refused:
            bank.balances()
        assert refused.value.response.status_code == 503
        began_s = time.monotonic()
        await asyncio.to_thread(wait_until, bank.balances, "readable again")
        assert time.monotonic() - began_s < RECOVERED_S_MAX
        assert bank.balances() == {"a": 150, "b": 150, "c": 30}
        bank.set(d=1)
        await asyncio.to_thread(wait_until, bank.indexed, "compacted again")
        assert bank.balances() == {"a": 150, "b": 150, "c": 30, "d": 1}
