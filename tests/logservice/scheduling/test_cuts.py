"""The rules of rounds, row by row, and what a leader does by them on a real server (logservice/scheduling)."""

from __future__ import annotations

import dataclasses

import pytest
from redis.asyncio import Redis

from logservice.scheduling.cuts import PATIENCE_S, PATIENCE_S_MAX, RoundMemory, Step, next_step
from logservice.scheduling.rounds import Rounds
from shared.catalog import Catalog, Collection, Database
from shared.cluster.placement import Layout
from shared.log.cuts import Cuts, CutState, ShardProgress
from shared.log.log import Log
from shared.log.state import Pointer
from shared.manifest.roots import Root, RootStore, make_root
from shared.objects.port import ObjectStore
from shared.redis.keys import Keys
from tests.logservice.compacting import compact, publish
from tests.logservice.conftest import SteppedClock
from tests.shared.log.appending import append, make_collection


def shard(number: int, covers: int, below_cut: int, tail: int) -> ShardProgress:
    return ShardProgress(number, Pointer(1, "h", covers) if covers else None, tail, below_cut)


THERE = shard(0, 100, 80, 140)
IDLE = shard(1, 0, 0, 0)
BEHIND = shard(1, 60, 90, 140)


def state(*shards: ShardProgress, cut: int | None = 100, rooted: int | None = None, head: int = 150) -> CutState:
    return CutState("c", 0, head, Layout(0, len(shards)), cut, rooted, shards)


def step(found: CutState, *, due: bool = False, memory: RoundMemory | None = None, now_s: float = 0.0) -> Step:
    return next_step(found, memory or RoundMemory(), due, now_s)[0]


def test_a_collection_without_a_cut_gets_one_at_once() -> None:
    assert step(state(THERE, IDLE, cut=None)) is Step.BEGIN


def test_a_cut_that_an_older_compactor_went_beyond_is_replaced() -> None:
    assert step(state(shard(0, 101, 80, 140), BEHIND)) is Step.BEGIN


def test_a_root_is_written_when_no_shard_is_behind() -> None:
    assert step(state(THERE, IDLE)) is Step.WRITE_ROOT
    assert step(state(THERE, BEHIND)) is Step.WAIT


def test_a_shard_with_operations_beyond_the_cut_alone_is_not_behind() -> None:
    assert step(state(THERE, shard(1, 60, 50, 140))) is Step.WRITE_ROOT
    assert step(state(THERE, shard(1, 0, 0, 140))) is Step.WRITE_ROOT


def test_the_next_round_begins_when_a_shard_is_due_and_the_root_is_there() -> None:
    assert step(state(THERE, IDLE, rooted=100), due=True) is Step.BEGIN
    assert step(state(THERE, IDLE, rooted=100)) is Step.REST
    assert step(state(THERE, IDLE, rooted=100, head=100), due=True) is Step.REST
    assert step(state(THERE, IDLE), due=True) is Step.WRITE_ROOT


def test_a_shard_that_does_not_move_is_given_up_and_the_others_go_on() -> None:
    found = state(THERE, BEHIND)
    first, memory = next_step(found, RoundMemory(), True, 0.0)
    assert first is Step.WAIT
    assert step(found, due=True, memory=memory, now_s=PATIENCE_S - 1) is Step.WAIT
    given_up, memory = next_step(found, memory, True, PATIENCE_S)
    assert (given_up, dict(memory.given_up)) == (Step.BEGIN, {1: 60})
    # In the rounds after that it holds up nothing, and there is no root.
    later = state(shard(0, 150, 140, 190), BEHIND, cut=150, head=200)
    assert step(later, due=True, memory=memory, now_s=PATIENCE_S + 1) is Step.BEGIN
    assert step(later, memory=memory, now_s=PATIENCE_S + 1) is Step.WAIT


def test_a_shard_that_was_given_up_is_waited_for_again_once_it_moves_and_for_longer() -> None:
    memory = RoundMemory(100, {1: 60}, 0.0, {1: 60})
    moved = state(THERE, shard(1, 80, 90, 140))
    taken, memory = next_step(moved, memory, True, 1000.0)
    assert (taken, memory.given_up, memory.patience_s) == (Step.WAIT, {}, 2 * PATIENCE_S)
    assert next_step(state(THERE, shard(1, 100, 90, 140)), memory, True, 1001.0)[0] is Step.WRITE_ROOT


def test_the_patience_is_bounded() -> None:
    memory = RoundMemory()
    for turn in range(20):
        memory = dataclasses.replace(memory, cut=100, behind={1: turn}, given_up={1: turn})
        _, memory = next_step(state(THERE, shard(1, turn + 1, 90, 140)), memory, True, 0.0)
    assert memory.patience_s == PATIENCE_S_MAX


def test_a_large_shard_that_moves_step_by_step_is_not_given_up() -> None:
    memory, now_s = RoundMemory(), 0.0
    for covers in range(10, 90, 10):
        taken, memory = next_step(state(THERE, shard(1, covers, 90, 140)), memory, True, now_s)
        assert taken is Step.WAIT
        now_s += PATIENCE_S - 1


# ---- on a real server


@pytest.fixture
def cuts(redis: Redis, keys: Keys) -> Cuts:
    return Cuts(redis, keys)


@pytest.fixture
def rounds(cuts: Cuts, objects: ObjectStore, clock: SteppedClock) -> Rounds:
    return Rounds(cuts, objects, clock)


async def newest_root(objects: ObjectStore, collection: Collection) -> Root:
    root = await RootStore(objects).newest(collection.id)
    assert root is not None
    return root


async def refreshed(catalog: Catalog, database: Database, collection: Collection) -> Collection:
    found = await catalog.collections.get_by_id(database, collection.id)
    assert found is not None
    return found


async def test_a_round_ends_with_a_root_of_one_moment(
    catalog: Catalog, database: Database, log: Log, objects: ObjectStore, rounds: Rounds
) -> None:
    made = await make_collection(catalog, database, shards=3)
    await append(log, made, [str(number) for number in range(30)])
    rounds.watch(made.id, made.layout)
    wanted = await rounds.step({made.id: 5.0})
    assert sorted(wanted) == [(made.id, shard, 5.0) for shard in range(3)]
    assert (await newest_root(objects, made)).manifests == []  # from before the first compaction
    await append(log, made, [str(number) for number in range(30)])
    pointers = [await compact(log, objects, made.id, 0, 31)]
    assert sorted(await rounds.step({})) == [(made.id, shard, 1.0) for shard in (1, 2)]
    assert (await newest_root(objects, made)).position == 1
    pointers += [await compact(log, objects, made.id, shard, 31) for shard in (1, 2)]
    assert await rounds.step({}) == []
    root = await newest_root(objects, made)
    assert (root.position, root.pointers, root.epoch) == (31, pointers, 0)
    assert {pointer.covers for pointer in pointers} == {31}
    assert sorted(await rounds.step({made.id: 1.0})) == [(made.id, shard, 1.0) for shard in range(3)]
    assert (await refreshed(catalog, database, made)).cut == 61


async def test_a_leader_that_died_between_the_root_and_its_note_is_followed_by_one_that_goes_on(
    catalog: Catalog, database: Database, log: Log, objects: ObjectStore, cuts: Cuts, clock: SteppedClock
) -> None:
    made = await make_collection(catalog, database, shards=2)
    root = make_root(made.id, 0, 1, made.layout, [None, None], "the one that died", 0.0)
    await RootStore(objects).create(root)
    await append(log, made, ["a"])
    rounds = Rounds(cuts, objects, clock)
    rounds.watch(made.id, made.layout)
    assert len(await rounds.step({made.id: 1.0})) == 1
    assert (await newest_root(objects, made)).written_by == "the one that died"


async def test_a_position_whose_root_is_another_one_is_passed_over(
    catalog: Catalog, database: Database, log: Log, objects: ObjectStore, rounds: Rounds
) -> None:
    made = await make_collection(catalog, database, shards=2)
    await RootStore(objects).create(
        make_root(made.id, 0, 1, made.layout, [Pointer(1, "x", 1), None], "nobody knows", 0.0)
    )
    await append(log, made, [str(number) for number in range(20)])
    rounds.watch(made.id, made.layout)
    assert len(await rounds.step({made.id: 1.0})) == 2
    pointers = [await compact(log, objects, made.id, shard) for shard in (0, 1)]
    await rounds.step({})
    assert (await newest_root(objects, made)).pointers == pointers


async def test_a_leader_whose_look_is_old_moves_no_cut(
    catalog: Catalog, database: Database, log: Log, cuts: Cuts
) -> None:
    made = await make_collection(catalog, database, shards=2)
    old = (await cuts.read({made.id: made.layout}))[made.id]
    await append(log, made, ["a"])
    assert await cuts.begin(old) == 2
    await append(log, made, ["b"])
    assert await cuts.begin(old) is None
    assert not await cuts.note_root(old)
    assert (await cuts.read({made.id: made.layout}))[made.id].cut == 2
    assert await cuts.read({made.id: Layout(9, 2)}) == {}


async def test_a_collection_that_older_compactors_left_without_a_cut_gets_a_root(
    catalog: Catalog, database: Database, log: Log, objects: ObjectStore, rounds: Rounds, redis: Redis, keys: Keys
) -> None:
    made = await make_collection(catalog, database, shards=2)
    await redis.hdel(keys.state(made.id), "cut")
    await append(log, made, [str(number) for number in range(20)])
    ahead = await publish(objects, made.id, 0, 21, None)
    assert await log.commit(made.id, 0, None, ahead, 0)
    rounds.watch(made.id, made.layout)
    assert await rounds.step({}) == [(made.id, 1, 1.0)]
    pointer = await compact(log, objects, made.id, 1)
    await rounds.step({})
    assert (await newest_root(objects, made)).pointers == [ahead, pointer]
