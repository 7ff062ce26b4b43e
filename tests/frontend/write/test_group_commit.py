"""Small writes that come together: what goes in one append, and that each keeps its own outcome."""

from __future__ import annotations

import asyncio
import math
import random
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
from redis.asyncio import Redis

from frontend.write import group_commit
from frontend.write.dirty import DirtyShards
from frontend.write.group_commit import FULL_TRIES_MAX, GroupCommit
from frontend.write.operations import SMALL_BYTES_MAX, Operations
from shared.catalog import Collection
from shared.cluster.placement import Layout
from shared.errors import Backoff, DimensionMismatch, Gone, StaleGeneration, Unavailable, UnknownOutcome
from shared.log.append import Appended, AppendRequest
from shared.log.backlog import BacklogFull
from shared.log.log import Log
from shared.log.pairs import PairsFull
from shared.records.model import Op
from shared.redis.client import open_redis
from shared.redis.keys import Keys
from tests.frontend.fakes import FakeJobs, FakeLog, new_collection, nothing_beyond_disk
from tests.redis_server import RedisServer
from tests.shared.log.appending import eventually, everything, make_cluster, make_collection

COLLECTION = new_collection()


class SlowLog(FakeLog):
    """Appends when it is let go; refuses whatever holds one of the bad ids."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self.begun = asyncio.Event()
        self.bad: dict[str, Exception] = {}

    async def append(self, request: AppendRequest) -> Appended:
        self.begun.set()
        await self.go_on.wait()
        done = await super().append(request)
        for record_id in self.ids()[-1]:
            if record_id in self.bad:
                raise self.bad[record_id]
        return done

    def ids(self) -> list[list[str]]:
        """Of every append that was tried."""
        return [
            [row["id"] for row in sorted(chain(*append.parts.values()), key=lambda row: row["offset"])]
            for append in self.appends
        ]


def row(record_id: str, width: int | None = 2, op: Op = Op.UPSERT, **columns: Any) -> Operations:
    embeddings = None if width is None else np.full((1, width), 0.5, dtype=np.float32)
    return Operations(op, [record_id], embeddings, size=100, **columns)


class World:
    def __init__(self) -> None:
        self.log = SlowLog()
        self.jobs = FakeJobs()
        self.dirty = DirtyShards(self.jobs, gather_s=0)  # type: ignore[arg-type]
        self.groups = GroupCommit(self.log, self.dirty, nothing_beyond_disk())  # type: ignore[arg-type]
        self.writing: list[asyncio.Task[None]] = []

    async def write(self, *writes: Operations, collection: Any = COLLECTION) -> None:
        """Begins them, one after the other."""
        for operations in writes:
            writing = self.groups.append(collection, operations, uuid.uuid4().hex)
            self.writing.append(asyncio.create_task(writing))
            await asyncio.sleep(0)

    async def outcomes(self) -> list[Any]:
        self.log.go_on.set()
        return await asyncio.gather(*self.writing, return_exceptions=True)


async def test_writes_that_come_while_one_is_appended_are_appended_together_in_their_order() -> None:
    world = World()
    await world.write(*(row(name) for name in "abcde"))
    assert await world.outcomes() == [None] * 5
    assert world.log.ids() == [["a"], ["b", "c", "d", "e"]]
    assert len({append.request_id for append in world.log.appends}) == 2
    await world.write(row("f"))
    assert await world.outcomes() == [None] * 6
    assert world.log.ids()[-1] == ["f"], "nothing is left of a group"


async def test_a_group_holds_all_that_its_members_say() -> None:
    world = World()
    await world.write(
        row("first"),
        row("a", documents=["x"], metadatas=[b'{"k":1}'], kinds=frozenset({("k", "int")})),
        row("b", op=Op.ADD, uris=["u"], kinds=frozenset({("l", "bool")})),
        Operations(
            Op.UPDATE, ["c", "d"], np.ones((1, 2), dtype=np.float32), np.array([1], dtype=np.int64), [None, "y"], size=9
        ),
    )
    await world.outcomes()
    append = world.log.appends[1]
    assert (append.count, append.dimension, append.new_keys) == (4, 2, [("k", "int"), ("l", "bool")])
    found = [tuple(each[name] for name in ("op", "id", "document", "metadata", "uri")) for each in append.parts[0]]
    assert found == [
        (Op.UPSERT, "a", "x", '{"k":1}', None),
        (Op.ADD, "b", None, None, "u"),
        (Op.UPDATE, "c", None, None, None),
        (Op.UPDATE, "d", "y", None, None),
    ]
    assert [each["embedding"] for each in append.parts[0]] == [[0.5, 0.5], [0.5, 0.5], None, [1.0, 1.0]]


async def test_only_what_a_refusal_would_mean_the_same_for_goes_together() -> None:
    world = World()
    await world.write(row("first"), row("a"), row("b", 3), row("c", 3), row("d", None), row("e", None, Op.DELETE))
    await world.write(row("f"), collection=replace(COLLECTION, generation=2))
    await world.write(row("g"), row("h"))
    assert await world.outcomes() == [None] * 9
    assert world.log.ids() == [["first"], ["a"], ["b", "c"], ["d"], ["e"], ["f"], ["g", "h"]]
    assert [append.dimension for append in world.log.appends] == [2, 2, 3, None, None, 2, 2]
    assert [append.generation for append in world.log.appends] == [1, 1, 1, 1, 1, 2, 1]
    assert [append.deletes_only for append in world.log.appends] == [False] * 4 + [True] + [False] * 2


async def test_other_collections_and_large_writes_do_not_wait() -> None:
    world = World()
    await world.write(row("a"), replace(row("b"), size=SMALL_BYTES_MAX + 1), replace(row("c"), size=None))
    await world.write(row("d"), collection=replace(COLLECTION, id="another"))
    assert await world.outcomes() == [None] * 4
    assert sorted(world.log.ids()) == [["a"], ["b"], ["c"], ["d"]]


FAILURES = [
    Backoff("out of memory"),
    StaleGeneration("changed"),
    DimensionMismatch("no", 5),
    Gone("gone"),
    Unavailable("away"),
    UnknownOutcome("lost"),
    ZeroDivisionError("unforeseen"),
]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
async def test_what_speaks_of_the_group_is_told_to_all_of_it_by_one_append(failure: Any) -> None:
    world = World()
    world.log.bad["217"] = failure
    await world.write(*(row(str(number)) for number in range(400)))
    assert await world.outcomes() == [None, *[failure] * 399]
    assert [len(ids) for ids in world.log.ids()] == [1, 399]


async def test_a_write_that_cannot_be_encoded_is_refused_alone_for_a_logarithm_of_appends() -> None:
    world = World()
    names = [str(number) for number in range(400)]
    names[217] = "\ud800"
    await world.write(*(row(name) for name in names))
    outcomes = await world.outcomes()
    assert isinstance(outcomes[217], UnicodeEncodeError)
    assert [outcome for outcome in outcomes if outcome is not None] == [outcomes[217]]
    appended = world.log.ids()
    assert list(chain(*appended)) == names[:217] + names[218:], "each once, in order"
    assert len(appended) <= 2 + math.log2(400)
    assert len({append.request_id for append in world.log.appends}) == len(appended)


async def test_writes_that_saw_different_layouts_are_not_refused_for_each_other() -> None:
    world = World()
    await world.write(row("first"), row("a"))
    await world.write(row("b"), collection=replace(COLLECTION, layout=Layout(3, 2)))
    assert await world.outcomes() == [None] * 3
    assert world.log.ids() == [["first"], ["a"], ["b"]]


async def test_who_gives_up_takes_nothing_from_the_others() -> None:
    world = World()
    await world.write(*(row(name) for name in "abc"))
    world.writing[1].cancel()
    await asyncio.sleep(0)
    world.writing[0].cancel()
    await world.write(row("d"))
    gone, also_gone, *others = await world.outcomes()
    assert isinstance(gone, asyncio.CancelledError)
    assert isinstance(also_gone, asyncio.CancelledError)
    assert others == [None, None]
    assert sorted(chain(*world.log.ids())) == ["b", "c", "d"]


async def test_a_defect_in_what_settles_a_group_reaches_each_that_has_no_outcome_yet(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world, acknowledge = World(), group_commit._acknowledge

    def broken(members: Sequence[Any]) -> None:
        acknowledge(members[:1])
        raise ZeroDivisionError("unforeseen")

    monkeypatch.setattr(group_commit, "_acknowledge", broken)
    await world.write(*(row(name) for name in "abcd"))
    async with asyncio.timeout(5):
        outcomes = await world.outcomes()
    assert outcomes[:2] == [None, None]
    assert [type(outcome) for outcome in outcomes[2:]] == [ZeroDivisionError] * 2
    monkeypatch.undo()
    await world.write(row("e"))
    assert (await world.outcomes())[-1] is None, "the next write does not wait for the broken group"


# ---- a real log


class CountingLog(Log):
    """Keeps the request id of every append that was tried."""

    request_ids: list[str]

    async def append(self, request: AppendRequest) -> Appended:
        self.request_ids.append(request.request_id)
        return await super().append(request)


class Backlog:
    """Writes to a collection of a real server, all at once, whose backlog has a limit."""

    def __init__(self, redis: Redis, keys: Keys, collection: Collection, **limits: Any) -> None:
        self.log = CountingLog(redis, keys, **limits)
        self.log.request_ids = []
        self.collection = collection
        self.groups = GroupCommit(self.log, DirtyShards(FakeJobs(), gather_s=0), nothing_beyond_disk())  # type: ignore[arg-type]

    async def write(self, *writes: Operations) -> list[type[Any]]:
        """The classes of the outcomes. The id of the first record of each write is its request id."""
        writing = [self.groups.append(self.collection, each, each.ids[0]) for each in writes]
        return [type(outcome) for outcome in await asyncio.gather(*writing, return_exceptions=True)]

    async def ids(self) -> list[str]:
        """Of the records in the log, in the order of their positions."""
        return [record_id for _, record_id in sorted((await everything(self.log, self.collection)).items())]


@pytest.fixture
async def redis(valkey_server: RedisServer) -> AsyncIterator[Redis]:
    async with open_redis(valkey_server.url) as client:
        yield client


@pytest.fixture
async def collection(redis: Redis, keys: Keys) -> Collection:
    return await make_collection(*await make_cluster(redis, keys))


async def test_a_full_backlog_refuses_a_group_of_any_size_by_one_append(
    redis: Redis, keys: Keys, collection: Collection
) -> None:
    backlog = Backlog(redis, keys, collection, backlog_ops_max=1)
    outcomes = await backlog.write(*(row(str(number)) for number in range(400)))
    assert outcomes == [type(None), *[BacklogFull] * 399]
    assert await backlog.ids() == ["0"]
    assert len(backlog.log.request_ids) == 2


async def test_a_backlog_with_space_for_some_takes_those_in_their_order(
    redis: Redis, keys: Keys, collection: Collection
) -> None:
    backlog = Backlog(redis, keys, collection, backlog_ops_max=150)
    outcomes = await backlog.write(*(row(str(number)) for number in range(400)))
    assert outcomes == [*[type(None)] * 150, *[BacklogFull] * 250]
    assert await backlog.ids() == [str(number) for number in range(150)]
    assert backlog.log.request_ids == ["0", "1", "1"], "under the first one's id, whose first append was refused"


async def test_a_large_write_is_refused_and_the_small_ones_behind_it_are_not(
    redis: Redis, keys: Keys, collection: Collection
) -> None:
    backlog = Backlog(redis, keys, collection, backlog_bytes_max=20_000)
    large = replace(row("large", documents=["x" * 30_000]), size=30_000)
    outcomes = await backlog.write(row("first"), large, *(row(str(number)) for number in range(20)))
    assert outcomes == [type(None), BacklogFull, *[type(None)] * 20]
    assert await backlog.ids() == ["first", *(str(number) for number in range(20))]
    assert backlog.log.request_ids == ["first", "large", "0"]


async def test_a_backlog_that_is_nearly_full_of_bytes_is_filled_by_a_few_appends(
    redis: Redis, keys: Keys, collection: Collection
) -> None:
    backlog = Backlog(redis, keys, collection, backlog_bytes_max=10_000)
    outcomes = await backlog.write(*(row(str(number)) for number in range(400)))
    taken = outcomes.count(type(None))
    assert 20 < taken < 400
    assert outcomes == [*[type(None)] * taken, *[BacklogFull] * (400 - taken)]
    assert await backlog.ids() == [str(number) for number in range(taken)]
    assert len(backlog.log.request_ids) <= 1 + FULL_TRIES_MAX


async def test_kill_9_of_the_server_under_many_small_writes_loses_and_doubles_nothing(
    own_server: RedisServer, keys: Keys
) -> None:
    async with open_redis(own_server.url) as redis:
        catalog, database = await make_cluster(redis, keys)
        collection = await make_collection(catalog, database, shards=2)
        log = Log(redis, keys)
        groups = GroupCommit(log, DirtyShards(FakeJobs(), gather_s=0), nothing_beyond_disk())  # type: ignore[arg-type]
        acknowledged: set[str] = set()
        sent: set[str] = set()
        stopping = asyncio.Event()

        async def write(writer: int) -> None:
            number = 0
            while not stopping.is_set():
                number += 1
                record_id = f"{writer}.{number}"
                sent.add(record_id)
                await groups.append(collection, row(record_id), uuid.uuid4().hex)
                acknowledged.add(record_id)

        async def kill() -> None:
            chance = random.Random(5)
            for _ in range(2):
                goal = len(acknowledged) + chance.randrange(100, 300)

                async def reached(goal: int = goal) -> bool:
                    return len(acknowledged) >= goal

                await eventually(reached)
                await asyncio.to_thread(own_server.restart)
            stopping.set()

        await asyncio.gather(kill(), *(write(number) for number in range(16)))
        found: Sequence[str] = list((await everything(log, collection)).values())
    assert acknowledged <= set(found) <= sent
    assert len(set(found)) == len(found)


async def test_a_group_whose_answer_is_lost_is_unknown_to_each_and_appended_once(
    own_server: RedisServer, keys: Keys
) -> None:
    async with open_redis(own_server.url) as redis:
        catalog, database = await make_cluster(redis, keys)
        collection = await make_collection(catalog, database)
        log = Log(redis, keys, append_deadline_s=0.3)
        groups = GroupCommit(log, DirtyShards(FakeJobs(), gather_s=0), nothing_beyond_disk())  # type: ignore[arg-type]
        with own_server.frozen():
            writing = [groups.append(collection, row(name), uuid.uuid4().hex) for name in "abc"]
            outcomes = await asyncio.gather(*writing, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [UnknownOutcome] * 3

        async def all_there() -> bool:
            await groups.append(collection, row("last"), uuid.uuid4().hex)
            return True

        await eventually(all_there)
        found = list((await everything(log, collection)).values())
    assert len(set(found)) == len(found)
    assert found[-1] == "last"


async def test_a_write_that_brings_too_many_metadata_keys_is_refused_and_those_beside_it_are_not(
    redis: Redis, keys: Keys, collection: Collection
) -> None:
    backlog = Backlog(redis, keys, collection, metadata_pairs_max=3)
    greedy = row("greedy", kinds=frozenset((name, "int") for name in "abcd"))
    modest = [row(str(number), kinds=frozenset({("k", "int")})) for number in range(8)]
    outcomes = await backlog.write(row("first"), *modest[:5], greedy, *modest[5:])
    assert outcomes == [*[type(None)] * 6, PairsFull, *[type(None)] * 3]
    assert await backlog.ids() == ["first", *(str(number) for number in range(8))]
    assert await redis.smembers(keys.metadata_keys(collection.id)) == {b'["k","int"]'}


async def test_metadata_keys_that_an_append_has_brought_are_told() -> None:
    world, told = World(), list[Any]()
    world.groups = GroupCommit(
        world.log,  # type: ignore[arg-type]
        world.dirty,
        nothing_beyond_disk(),
        lambda collection, pairs: told.append((collection, list(pairs))),
    )
    await world.write(row("a", kinds=frozenset({("k", "int")})), row("b"))
    await world.outcomes()
    assert told == [(COLLECTION, [("k", "int")])]
