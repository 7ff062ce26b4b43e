"""Writers and readers at work on one collection, each checking what it sees against the ledger.

A writer owns its ids and has one write under way at a time. A reader reads by id and by vector. Neither stops when
requests fail: that is what the tests cause. What stops the workload is a broken promise.
"""

import asyncio
import random
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Self

import aiohttp
from redis.exceptions import RedisError

from shared.errors import Unavailable
from shared.redis.client import command, open_redis
from shared.redis.keys import Keys
from tests.cluster.harness import Cluster
from tests.faults.ledger import Ledger, State, Violation

DIMENSION: Final = 8
BATCH_ROWS_MAX: Final = 20
REQUEST_TIMEOUT_S: Final = 60.0
"""Longer than any deadline inside the server: what has no answer by then has no request behind it either."""
PAUSE_AFTER_FAILURE_S: Final = 0.05
INDEX_TIMEOUT_S: Final = 60.0
REBUILD_TIMEOUT_S: Final = 60.0


class Failed(Exception):
    """A request was not answered with success. `applied` is False when it certainly did nothing."""

    def __init__(self, reason: str, *, applied: bool | None) -> None:
        super().__init__(reason)
        self.applied = applied


@dataclass
class Outages:
    """How long reads failed in a row, over all readers' attempts."""

    longest_s: float = 0.0
    reads: int = 0
    failures: int = 0
    last_reason: str = ""
    _failing_since_s: dict[int, float] = field(default_factory=dict)

    def failed(self, reader: int, began_s: float, reason: str) -> None:
        self.failures += 1
        self.last_reason = reason
        self._failing_since_s.setdefault(reader, began_s)
        self.longest_s = max(self.longest_s, time.monotonic() - self._failing_since_s[reader])

    def succeeded(self, reader: int) -> None:
        self.reads += 1
        since = self._failing_since_s.pop(reader, None)
        if since is not None:
            self.longest_s = max(self.longest_s, time.monotonic() - since)


class Workload:
    """`urls` are the frontends; a request that cannot connect to one goes to the next."""

    def __init__(self, urls: Sequence[str], seed: int, *, writers: int = 4, readers: int = 2) -> None:
        self.urls = list(urls)
        self.ledger = Ledger()
        self.outages = Outages()
        self.write_failures: dict[str, int] = {}
        self._random = random.Random(seed)
        self._writers = writers
        self._readers = readers
        self._stop = asyncio.Event()
        self._name = f"faults-{uuid.uuid4().hex[:12]}"
        self._base = "/api/v2/tenants/default_tenant/databases/default_database/collections"
        self._id = ""

    async def __aenter__(self) -> Self:
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0))
        self._id = (await self._post("", {"name": self._name}))["id"]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        await self._session.close()

    async def run(self) -> None:
        """Until `stop()`, or until a promise is broken (an exception group with the Violation)."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._writers):
                group.create_task(self._write(number, random.Random(self._random.random())))
            for number in range(self._readers):
                group.create_task(self._read(number, random.Random(self._random.random())))

    def stop(self) -> None:
        self._stop.set()

    # ---- writers

    async def _write(self, writer: int, chance: random.Random) -> None:
        mine: list[str] = []
        for version in range(1, 1_000_000):
            if self._stop.is_set():
                return
            mine = [record_id for record_id in mine if not self.ledger.histories[record_id].retired]
            action, states = self._plan(writer, version, mine, chance)
            self.ledger.sent(states)
            try:
                await self._post(f"/{self._id}/{action}", body_of(action, states))
            except Failed as failure:
                self.write_failures[str(failure)] = self.write_failures.get(str(failure), 0) + 1
                if failure.applied is False:
                    self.ledger.refused(states)
                else:
                    self.ledger.lost_sight_of(states)
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
                continue
            self.ledger.acknowledged(states)
            mine = list({*mine, *states})
            await self._see_own_write(states)

    def _plan(
        self, writer: int, version: int, mine: list[str], chance: random.Random
    ) -> tuple[str, dict[str, State | None]]:
        rows = chance.choice((1, 1, 3, BATCH_ROWS_MAX))
        alive = sorted(record_id for record_id in mine if self.ledger.settled(record_id) is not None)
        action = chance.choice(("add", "upsert", "upsert", "update", "delete")) if alive else "add"
        if action == "add":
            return action, {f"w{writer}-{version}-{row}": State(version, 0) for row in range(rows)}
        chosen = chance.sample(alive, min(rows, len(alive)))
        if action == "delete":
            return action, dict.fromkeys(chosen)
        if action == "update":
            return action, {record_id: self._patched(record_id, version) for record_id in chosen}
        # A dead id that comes back begins a new record: nothing of the old one may show.
        dead = sorted(set(mine) - set(alive))
        chosen += chance.sample(dead, min(2, len(dead)))
        return action, {record_id: State(version, version) for record_id in chosen}

    def _patched(self, record_id: str, patch: int) -> State:
        state = self.ledger.settled(record_id)
        assert state is not None
        return State(state.version, patch)

    async def _see_own_write(self, states: Mapping[str, State | None]) -> None:
        """An acknowledged write is seen by the very next read, through whichever frontend."""
        ids = list(states)[:5]
        floors = self.ledger.floors(ids)
        try:
            answer = await self._post(
                f"/{self._id}/get", {"ids": ids, "include": ["metadatas", "documents", "embeddings"]}
            )
        except Failed:
            return
        self.ledger.check_read(dict.fromkeys(ids) | read_states(answer), floors)

    # ---- readers

    async def _read(self, reader: int, chance: random.Random) -> None:
        while not self._stop.is_set():
            began_s = time.monotonic()
            try:
                await (self._read_by_ids(chance) if chance.random() < 0.5 else self._read_by_vector(chance))
            except Failed as failure:
                self.outages.failed(reader, began_s, str(failure))
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
            else:
                self.outages.succeeded(reader)

    async def _read_by_ids(self, chance: random.Random) -> None:
        known = list(self.ledger.histories)
        ids = chance.sample(known, min(5, len(known)))
        floors = self.ledger.floors(ids)
        answer = await self._post(f"/{self._id}/get", {"ids": ids, "include": ["metadatas", "documents", "embeddings"]})
        self.ledger.check_read(dict.fromkeys(ids) | read_states(answer), floors)

    async def _read_by_vector(self, chance: random.Random) -> None:
        floors = self.ledger.floors()
        query = [chance.uniform(-1, 1) for _ in range(DIMENSION)]
        body = {"query_embeddings": [query], "n_results": 10, "include": ["metadatas", "documents", "embeddings"]}
        answer = await self._post(f"/{self._id}/query", body)
        seen = read_states(
            {column: rows[0] if rows else rows for column, rows in answer.items() if column != "include"}
        )
        self.ledger.check_read(seen, floors)

    # ---- afterwards

    async def everything(self) -> dict[str, State]:
        """All that the collection holds, page by page; the count must agree."""
        seen: dict[str, State] = {}
        page = 500
        while True:
            body = {"limit": page, "offset": len(seen), "include": ["metadatas", "documents", "embeddings"]}
            states = read_states(await self._post(f"/{self._id}/get", body))
            seen |= states
            if len(states) < page:
                break
        count = await self._get(f"/{self._id}/count")
        if count != len(seen):
            raise Violation(f"count says {count}, the pages held {len(seen)}")
        return seen

    async def wait_until_indexed(self) -> None:
        """Until no operation of the collection is in the log alone."""
        async with asyncio.timeout(INDEX_TIMEOUT_S):
            while (await self._get(f"/{self._id}/indexing_status"))["num_unindexed_ops"]:  # noqa: ASYNC110
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)

    # ---- shards

    async def ask_for_shards(self, shards: int) -> None:
        """Repeated until it was heard."""
        while True:
            try:
                await self._request("PUT", f"/{self._id}", {"new_metadata": {"polychrome:shards": shards}})
            except Failed:
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)
            else:
                return

    async def wait_for_shards(self, shards: int, cluster: Cluster) -> None:
        """Until the collection has so many."""
        async with asyncio.timeout(REBUILD_TIMEOUT_S):
            while await self.shards(cluster) != shards:  # noqa: ASYNC110
                await asyncio.sleep(PAUSE_AFTER_FAILURE_S)

    async def shards(self, cluster: Cluster) -> int:
        """What Redis says, 0 while it is away."""
        try:
            async with open_redis(cluster.redis.url) as redis:
                layout = await command(redis, "HGET", Keys().state(self._id), "layout")
        except (Unavailable, RedisError):
            return 0
        return int(layout.split()[1])

    # ---- requests

    async def _post(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._request("POST", path, body)

    async def _get(self, path: str) -> Any:
        return await self._request("GET", path, None)

    async def _request(self, method: str, path: str, body: Mapping[str, Any] | None) -> Any:
        for url in self._random.sample(self.urls, len(self.urls)):
            try:
                async with self._session.request(method, url + self._base + path, json=body) as response:
                    answer = await response.read()
                    if response.status < 300:
                        return await response.json()
                    # 429 and 503 say that nothing was applied only when they name it so; a broken answer says nothing.
                    applied = False if response.status == 429 else None
                    raise Failed(f"{response.status} {answer[:200].decode(errors='replace')}", applied=applied)
            except aiohttp.ClientConnectorError:
                continue
            except (aiohttp.ClientError, TimeoutError) as error:
                raise Failed(f"{type(error).__name__}: {error}", applied=None) from error
        raise Failed("no frontend accepts connections", applied=False)


def vector_of(record_id: str, version: int) -> list[float]:
    chance = random.Random(f"{record_id}/{version}")
    return [chance.randint(-100, 100) / 64 for _ in range(DIMENSION)]


def body_of(action: str, states: Mapping[str, State | None]) -> dict[str, Any]:
    ids = list(states)
    if action == "delete":
        return {"ids": ids}
    present = {record_id: state for record_id, state in states.items() if state is not None}
    if action == "update":
        return {"ids": ids, "metadatas": [{"patch": state.patch} for state in present.values()]}
    return {
        "ids": ids,
        "embeddings": [vector_of(record_id, state.version) for record_id, state in present.items()],
        "documents": [f"{record_id} {state.version}" for record_id, state in present.items()],
        "metadatas": [{"version": state.version, "patch": state.patch} for state in present.values()],
    }


def read_states(answer: Mapping[str, Any]) -> dict[str, State]:
    """States of the records in an answer; the parts of each record must belong together."""
    seen: dict[str, State] = {}
    columns = (answer["ids"], answer["metadatas"], answer["documents"], answer["embeddings"])
    for record_id, metadata, document, embedding in zip(*columns, strict=True):
        if record_id in seen:
            raise Violation(f"{record_id} is in the answer twice")
        state = State(metadata["version"], metadata["patch"])
        if document != f"{record_id} {state.version}" or embedding != vector_of(record_id, state.version):
            raise Violation(f"{record_id} is torn: {metadata}, {document!r}, {embedding}")
        seen[record_id] = state
    return seen
