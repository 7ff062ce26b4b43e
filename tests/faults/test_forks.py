"""A family of forks and a function's output under `kill -9` of everything, with garbage collected all the time; then a
Redis that lost all it had.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import Any, Final

import aiohttp
import pytest

from polychrome.local.redis_server import answers
from tests.cluster.harness import Cluster, ClusterBuilder
from tests.cluster.waiting import wait_until
from tests.faults.kills import Killer
from tests.faults.scenario import ENVIRON

pytestmark = pytest.mark.timeout(300)

GARBAGE = {
    "POLYCHROME_LOGSERVICE_GARBAGE_S": "0.3",
    "POLYCHROME_LOGSERVICE_GRACE_S": "1",
    "POLYCHROME_LOGSERVICE_RETENTION_S": "1",
    "POLYCHROME_LOGSERVICE_SWEEP_S": "1",
    "POLYCHROME_LOGSERVICE_SNAPSHOT_S": "0.2",
}
BASE = "/api/v2/tenants/default_tenant/databases/default_database/collections"
PAUSE_S = 0.05
IN_STEP_S = 60.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    builder = ClusterBuilder(
        tmp_path_factory.mktemp("forks"), frontends=2, log_services=2, compactors=2, query_workers=2,
        shards_default=2, environ={**ENVIRON, **GARBAGE},
    )  # fmt: skip
    with builder.start() as running:
        running.allow_in_logs("log_range_missing|redis_is_empty|collections_without_a_row")
        yield running


FORKS_MAX: Final = 200
"""A family may have a few more."""


class Refused(Exception):
    """With a status that says what the request was."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status} {text}")
        self.status = status


class Clients:
    """Repeats what went away, until it is done; everything here may be repeated."""

    def __init__(self, session: aiohttp.ClientSession, urls: list[str]) -> None:
        self._session = session
        self._urls = urls

    async def call(self, method: str, path: str, body: Any = None) -> Any:
        while True:
            for url in self._urls:
                try:
                    async with self._session.request(method, url + BASE + path, json=body) as response:
                        if response.status < 300:
                            return await response.json()
                        if response.status < 500 and response.status != 429:
                            raise Refused(response.status, await response.text())
                except (aiohttp.ClientError, TimeoutError):
                    continue
            await asyncio.sleep(PAUSE_S)


class Family:
    """Members by name, each with its id and what it should hold: a document by id."""

    def __init__(self, clients: Clients, chance: random.Random) -> None:
        self.clients = clients
        self.chance = chance
        self.members: dict[str, tuple[str, dict[str, str]]] = {}
        self.forks = 0

    async def found(self) -> None:
        made = await self.clients.call("POST", "", {"name": "root", "get_or_create": True})
        self.members["root"] = (made["id"], {})
        attach = {"name": "stats", "function_id": "statistics", "output_collection": "output"}
        await self.clients.call("POST", f"/{made['id']}/functions/attach", attach)

    async def act(self, number: int) -> None:
        name = self.chance.choice(sorted(self.members))
        choice = self.chance.random()
        if choice < 0.2 and len(self.members) < 6 and self.forks < FORKS_MAX:
            await self.fork(name, f"fork{number}")
        elif choice < 0.3 and len(self.members) > 3 and name != "root":
            await self.delete(name)
        else:
            await self.write(name, number)

    async def fork(self, name: str, new_name: str) -> None:
        """A repeated fork whose name is taken was made before; nothing was written since."""
        origin, content = self.members[name]
        try:
            forked = await self.clients.call("POST", f"/{origin}/fork", {"new_name": new_name})
        except Refused as refused:
            if refused.status != 409:
                raise
            forked = await self.clients.call("GET", f"/{new_name}")
        self.forks += 1
        self.members[new_name] = (forked["id"], dict(content))
        await self.check(new_name)

    async def delete(self, name: str) -> None:
        del self.members[name]
        try:
            await self.clients.call("DELETE", f"/{name}")
        except Refused as refused:
            if refused.status != 404:
                raise

    async def write(self, name: str, number: int) -> None:
        member, content = self.members[name]
        ids = [f"id{self.chance.randrange(150)}" for _ in range(30)]
        if self.chance.random() < 0.2:
            await self.clients.call("POST", f"/{member}/delete", {"ids": sorted({*ids})})
            for one in ids:
                content.pop(one, None)
            return
        rows = dict.fromkeys(ids, f"{name} {number}")
        body = {
            "ids": list(rows),
            "documents": list(rows.values()),
            "embeddings": [[float(number), 1.0]] * len(rows),
            "metadatas": [{"by": name, "number": number}] * len(rows),
        }
        await self.clients.call("POST", f"/{member}/upsert", body)
        content |= rows

    async def check(self, name: str) -> None:
        member, content = self.members[name]
        held = await self.clients.call("POST", f"/{member}/get", {"include": ["documents"]})
        assert dict(zip(held["ids"], held["documents"], strict=True)) == content, name

    async def check_all(self) -> None:
        for name in self.members:
            await self.check(name)

    async def settled(self) -> None:
        """Everything is compacted."""
        for member, _ in self.members.values():
            async with asyncio.timeout(IN_STEP_S):
                while (await self.clients.call("GET", f"/{member}/indexing_status"))["num_unindexed_ops"]:  # noqa: ASYNC110
                    await asyncio.sleep(PAUSE_S)

    async def output_in_step(self) -> None:
        _, content = self.members["root"]
        output = await self.clients.call("GET", "/output")
        wanted: dict[str, int] = {}
        for text in content.values():
            by, number = text.split()
            for one in (f"by::str:{by}", f"number::int:{number}"):
                wanted[one] = wanted.get(one, 0) + 1
        wanted["summary::total_count"] = len(content)
        held: dict[str, int] = {}
        async with asyncio.timeout(IN_STEP_S):
            while held != wanted:
                page = await self.clients.call("POST", f"/{output['id']}/get", {"include": ["metadatas"]})
                held = {one: row["count"] for one, row in zip(page["ids"], page["metadatas"], strict=True)}
                await asyncio.sleep(PAUSE_S)


async def lose_redis(cluster: Cluster) -> None:
    """With all its data."""
    cluster.redis.kill()
    for path in (cluster.directory / "redis").rglob("*"):
        if path.is_file() and not path.name.endswith(".conf"):
            path.unlink()
    cluster.redis.process.start()
    await asyncio.to_thread(wait_until, lambda: answers(cluster.redis.url), "an answering Redis server")


async def test_forks_and_outputs_outlive_every_process_and_a_lost_redis(cluster: Cluster) -> None:
    killer = Killer(cluster, random.Random(4))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as session:
        family = Family(Clients(session, cluster.urls), random.Random(5))
        await family.found()

        async def kill() -> None:
            for _ in range(14):
                await killer.anything()

        killing = asyncio.create_task(kill())
        number = 0
        while not killing.done():
            number += 1
            await family.act(number)
        await killing
        await asyncio.to_thread(cluster.wait_ready)
        await family.check_all()
        await family.output_in_step()
        await family.settled()
        member, _ = family.members["root"]
        count = (await family.clients.call("GET", f"/{member}/fork_count"))["count"]
        assert count >= family.forks  # a fork may have been made twice under one name after a lost answer
        await killer.restart_queryworkers()
        await family.check_all()
        await asyncio.sleep(3)  # snapshots and garbage
        await lose_redis(cluster)
        await family.check_all()
        assert (await family.clients.call("GET", f"/{member}/fork_count"))["count"] == count
        await family.write("root", number + 1)
        await family.fork("root", "after")
        await family.output_in_step()
