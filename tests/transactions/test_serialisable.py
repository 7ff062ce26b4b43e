"""Many clients on a few ids, over a real log, a real worker and a real compactor.

Here the position of each commit is known, so a stricter thing can be checked than that some order explains it all: the
order of the positions does. Every read of a transaction saw what was true at its token; what a commit had read was
still so when it was appended; and a commit that was refused would have been wrong.
"""

from __future__ import annotations

import asyncio
import random
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import orjson
import pytest

from frontend.read.gets import Get, Page
from frontend.read.point_in_time import PointInTimeReader
from frontend.read.reader import Reader
from frontend.write.operations import Operations
from frontend.write.transactions import Committer
from shared.catalog import Collection
from shared.cluster.placement import Layout
from shared.errors import ConditionalWriteConflict, StaleRead
from shared.log.log import Log
from shared.records.include import Wanted
from shared.records.model import Include, Op
from shared.records.selection import Selection
from shared.redis.keys import Keys
from shared.rpc.messages import GetRequest
from tests.frontend.fakes import FakeRows, new_collection, nothing_beyond_disk
from tests.queryworker.world import DIMENSION, World, open_world
from tests.redis_server import RedisServer
from tests.search.collection import DirectWorkers

IDS = [f"apple {i}" for i in range(4)] + list("abc")
"""The short ones are part of much else that is written."""

State = dict[str, str]
"""Id -> document."""


@dataclass(frozen=True)
class Committed:
    """`writes`: id -> document, None where it was deleted."""

    first: int
    token: int
    reads: dict[str, str | None]
    writes: dict[str, str | None]


@dataclass
class History:
    committed: list[Committed] = field(default_factory=list)
    read_only: list[tuple[int, dict[str, str | None]]] = field(default_factory=list)
    conflicts: list[tuple[int, int, dict[str, str | None]]] = field(default_factory=list)
    """Token, the head when it was refused, what had been read."""
    stale: int = 0

    def states(self) -> list[tuple[int, State]]:
        """(position after it, what was true then) of every commit, in order."""
        found: list[tuple[int, State]] = [(0, {})]
        for one in sorted(self.committed, key=lambda one: one.first):
            state = dict(found[-1][1])
            for id_, document in one.writes.items():
                if document is None:
                    state.pop(id_, None)
                else:
                    state[id_] = document
            found.append((one.first + len(one.writes), state))
        return found

    def check(self) -> None:
        states = self.states()

        def true_at(position: int) -> State:
            return next(state for at, state in reversed(states) if at <= position)

        for one in self.committed:
            for id_, document in one.reads.items():
                assert true_at(one.token).get(id_) == document
                assert true_at(one.first).get(id_) == document, f"{one} overlooked a write"
        for token, seen in self.read_only:
            assert {id_: true_at(token).get(id_) for id_ in seen} == seen
        for token, head, seen in self.conflicts:
            written = {id_ for one in self.committed if token <= one.first < head for id_ in one.writes}
            # Of an absent id nobody may know any more whether it was there.
            assert written & seen.keys() or None in seen.values(), f"refused at {token} without need"


class Compactions:
    """Compacts again and again; the worker swaps in what was compacted."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    async def run(self, world: World, until: asyncio.Event) -> None:
        while not until.is_set():
            await world.compact()
            await world.load_newest_manifests()
            self._next.set()
            self._next = asyncio.Event()

    async def next(self) -> None:
        await self._next.wait()


@dataclass(frozen=True)
class Access:
    """The frontend's way to a collection in a world."""

    log: Log
    reader: PointInTimeReader
    committer: Committer


class Client:
    """Runs transactions. A document says who wrote it, so no two are the same."""

    def __init__(
        self, access: Access, collection: Collection, history: History, compactions: Compactions, name: str, seed: int
    ) -> None:
        self._access = access
        self._compactions = compactions
        self._collection = collection
        self._history = history
        self._name = name
        self._random = random.Random(f"{seed} {name}")
        self._count = 0

    async def run(self, transactions: int) -> None:
        for _ in range(transactions):
            try:
                await self._transaction()
            except StaleRead:
                self._history.stale += 1

    async def _transaction(self) -> None:
        token: int | None = None
        seen: dict[str, str | None] = {}
        for _ in range(self._random.randint(0, 3)):  # without a read it is a blind write
            ids = self._random.sample(IDS, self._random.randint(1, 3))
            found, token = await self._read(ids, token)
            seen |= {id_: found.get(id_) for id_ in ids}
            await self._dawdle()
        operations, writes = self._writes(seen)
        if not operations:
            if token is not None:
                self._history.read_only.append((token, seen))
            return
        try:
            appended = await self._access.committer.commit(self._collection, operations, token, seen, uuid.uuid4().hex)
        except ConditionalWriteConflict:
            assert token is not None
            head = (await self._access.log.readable(self._collection.id))[-1]
            self._history.conflicts.append((token, head, seen))
        else:
            self._history.committed.append(Committed(appended.first, token or 0, seen, writes))

    async def _read(self, ids: Sequence[str], token: int | None) -> tuple[State, int]:
        limit = self._random.choice([None, 10])  # over several shards these are two ways
        get = Get(Selection(list(ids)), Page(0, limit), Wanted([Include.DOCUMENTS]))
        body, token = await self._access.reader.get(self._collection, get, token)
        answer = orjson.loads(bytes(body))
        return dict(zip(answer["ids"], answer["documents"], strict=True)), token

    async def _dawdle(self) -> None:
        if self._random.random() < 0.1:
            await self._compactions.next()
        for _ in range(self._random.choice([0, 0, 1, 5, 50])):
            await asyncio.sleep(0)

    def _writes(self, seen: dict[str, str | None]) -> tuple[list[Operations], dict[str, str | None]]:
        """Each id at most once, as the official clients see to it."""
        candidates = list(seen) or IDS
        chosen = self._random.sample(candidates, self._random.randint(0, min(3, len(candidates))))
        operations: list[Operations] = []
        writes: dict[str, str | None] = {}
        for id_ in chosen:
            self._count += 1
            document = f"{self._name} {self._count}"
            op = self._op(id_, seen)
            writes[id_] = None if op is Op.DELETE else document
            operations.append(_operation(op, id_, document))
        return operations, writes

    def _op(self, id_: str, seen: dict[str, str | None]) -> Op:
        if id_ not in seen:
            return self._random.choice([Op.UPSERT, Op.DELETE])
        return self._random.choice([Op.ADD, Op.UPSERT] if seen[id_] is None else [Op.UPDATE, Op.UPSERT, Op.DELETE])


def _operation(op: Op, id_: str, document: str) -> Operations:
    if op is Op.DELETE:
        return Operations(op, [id_])
    vectors = None if op is Op.UPDATE else np.zeros((1, DIMENSION), np.float32)
    return Operations(op, [id_], vectors, documents=[document])


async def write_noise(committer: Committer, collection: Collection, until: asyncio.Event) -> None:
    """Ordinary writes to other ids, which name the ids in their documents."""
    number = 0
    while not until.is_set():
        number += 1
        operation = _operation(Op.UPSERT, f"noise {number % 50}", " ".join(IDS))
        await committer.commit(collection, [operation], None, [], uuid.uuid4().hex)
        for _ in range(20):
            await asyncio.sleep(0)


async def run_clients(world: World, shards: int, seed: int, *, clients: int, transactions: int) -> History:
    row = new_collection(id=world.collection, dimension=DIMENSION, layout=Layout(0, shards))
    dirty: Any = SimpleNamespace(add=lambda collection, shards: None)
    rows: Any = FakeRows(row, row)
    workers = DirectWorkers(world.worker)
    committer = Committer(world.log, dirty, workers, nothing_beyond_disk())
    access = Access(world.log, PointInTimeReader(world.log, Reader(workers, rows, world.log)), committer)
    history, compactions, until = History(), Compactions(), asyncio.Event()
    async with asyncio.TaskGroup() as disturbing:
        disturbing.create_task(write_noise(committer, row, until))
        disturbing.create_task(compactions.run(world, until))
        async with asyncio.TaskGroup() as group:
            for number in range(clients):
                client = Client(access, row, history, compactions, f"client{number}", seed)
                group.create_task(client.run(transactions))
        until.set()
    return history


@pytest.mark.parametrize("shards", [1, 3])
@pytest.mark.parametrize("seed", [1, 2])
async def test_every_history_is_that_of_its_commits_one_after_the_other(
    valkey_server: RedisServer, keys: Keys, tmp_path: Path, shards: int, seed: int
) -> None:
    async with open_world(valkey_server.url, keys, tmp_path, shards=shards) as world:
        history = await run_clients(world, shards, seed, clients=12, transactions=25)
        history.check()
        assert len(history.committed) > 50
        assert len(history.conflicts) > 10
        last = history.states()[-1][1]
        found: dict[str, str | None] = {}
        for shard in range(shards):
            answer = await world.worker.get(GetRequest(world.shard(shard), Selection(IDS), documents=True))
            assert answer.columns.documents is not None
            found |= zip(answer.columns.ids, answer.columns.documents, strict=True)
        assert found == last
