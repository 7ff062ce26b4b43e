"""Who is told to load what when workers come and go."""

import asyncio

import msgspec

from frontend.read.prefetch import RECENT_MAX, Move, Prefetch, moves
from shared.cluster.membership import Member
from shared.cluster.placement import rank
from shared.errors import Unavailable
from shared.rpc.messages import PrefetchRequest

KEYS = [f"c{number}/0" for number in range(200)]
WORKERS = ["a", "b", "c"]


def members(names: list[str]) -> dict[str, Member]:
    return {name: Member(name, f"{name}:1") for name in names}


class FakeRpc:
    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.answers = asyncio.Event()
        self.fails = False

    async def begin(self, address: str, method: str, payload: bytes, *, timeout_s: float) -> memoryview:
        assert method == "prefetch"
        shard = msgspec.msgpack.decode(payload, type=PrefetchRequest).shard
        self.asked.append((address.partition(":")[0], f"{shard.collection}/{shard.shard}"))
        await self.answers.wait()
        if self.fails:
            raise Unavailable("dead")
        return memoryview(b"")


def test_a_worker_that_joins_gets_the_shards_that_rank_it_first() -> None:
    found = moves(KEYS, WORKERS, [*WORKERS, "d"], 1)
    assert {move.key for move in found} == {key for key in KEYS if rank(key, [*WORKERS, "d"])[0] == "d"}
    assert all(move.worker == "d" and move.kept for move in found)


def test_the_shards_of_a_worker_that_left_go_to_the_next_in_rank() -> None:
    found = moves(KEYS, WORKERS, ["a", "b"], 1)
    theirs = [key for key in KEYS if rank(key, WORKERS)[0] == "c"]
    assert found == [Move(key, rank(key, WORKERS)[1], kept=False) for key in theirs]


def test_with_replicas_only_who_is_new_among_the_first_is_told() -> None:
    found = moves(KEYS, WORKERS, [*WORKERS, "d"], 2)
    assert {move.key for move in found} == {key for key in KEYS if "d" in rank(key, [*WORKERS, "d"])[:2]}
    assert {move.worker for move in found} == {"d"}


def test_the_first_look_at_the_members_moves_nothing() -> None:
    assert moves(KEYS, [], WORKERS, 1) == []


async def test_reads_stay_where_the_shard_is_until_the_new_worker_has_it() -> None:
    rpc = FakeRpc()
    prefetch = Prefetch(rpc, 1)  # type: ignore[arg-type]
    for key in KEYS:
        prefetch.used(key)
    prefetch.changed(["a"], members(["a", "b"]))
    theirs = {key for key in KEYS if rank(key, ["a", "b"])[0] == "b"}
    assert {key for key in KEYS if prefetch.loading(key)} == theirs
    await asyncio.sleep(0)
    assert 0 < len(rpc.asked) < len(theirs)  # a few at a time
    rpc.answers.set()
    await asyncio.gather(*prefetch._tasks)
    assert set(rpc.asked) == {("b", key) for key in theirs}
    assert not any(prefetch.loading(key) for key in KEYS)


async def test_a_worker_that_fails_is_not_waited_for() -> None:
    rpc = FakeRpc()
    rpc.fails = True
    rpc.answers.set()
    prefetch = Prefetch(rpc, 1)  # type: ignore[arg-type]
    for key in KEYS:
        prefetch.used(key)
    prefetch.changed(["a"], members(["a", "b"]))
    await asyncio.gather(*prefetch._tasks)
    assert not any(prefetch.loading(key) for key in KEYS)


async def test_only_the_shards_read_lately_are_remembered() -> None:
    rpc = FakeRpc()
    rpc.answers.set()
    prefetch = Prefetch(rpc, 1)  # type: ignore[arg-type]
    for number in range(RECENT_MAX + 500):
        prefetch.used(f"c{number}/0")
    prefetch.changed(["a"], members(["b"]))
    await asyncio.gather(*prefetch._tasks)
    assert {key for _, key in rpc.asked} == {f"c{number}/0" for number in range(500, RECENT_MAX + 500)}
