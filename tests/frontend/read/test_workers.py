"""Which worker is asked, and which one next, when workers are dead, draining, slow or busy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec
import pytest

from frontend.read.race import HEDGES
from frontend.read.workers import CallTimeouts, Workers
from shared.cluster.membership import Member, Membership
from shared.cluster.placement import rank
from shared.errors import (
    Damaged,
    DeadlineExceeded,
    Gone,
    InvalidArgument,
    PolychromeError,
    Unavailable,
    WrongWorker,
)
from shared.records.selection import Selection
from shared.records.where import DocumentRegex
from shared.rpc.client import RpcClient
from shared.rpc.messages import CountRequest, CountResponse, Shard

SHARD = Shard("c", 3)
TIMEOUTS = CallTimeouts(failover_s=10.0, hedge_after_s=0.02, suspect_s=1.0, poll_s=0.5, retry_s=0.05)


class FakeClock:
    """Time passes only by sleeping."""

    def __init__(self) -> None:
        self.time = 100.0

    def now(self) -> float:
        return self.time

    def monotonic(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        self.time += seconds
        await asyncio.sleep(0)


class FakeMembership:
    def __init__(self, *members: str) -> None:
        self.found: list[Member] = [Member(name, f"{name}:1") for name in members]
        self.failure: PolychromeError | None = None
        self.reads = 0

    async def members(self) -> list[Member]:
        self.reads += 1
        if self.failure:
            raise self.failure
        return list(self.found)


class FakeRpc:
    """Answers per worker: a count, an error to raise, or an event to wait for before the count is given."""

    def __init__(self) -> None:
        self.answers: dict[str, int | PolychromeError | asyncio.Event] = {}
        self.asked: list[str] = []
        self.cancelled: list[str] = []
        self.busy: dict[str, int] = {}
        self.on_call: Callable[[str], None] = lambda worker: None

    def begin(
        self, address: str, method: str, payload: bytes, *, timeout_s: float, cost: float = 0.0
    ) -> asyncio.Future[memoryview]:
        worker = address.partition(":")[0]
        if method != "prefetch":
            self.asked.append(worker)
        call = asyncio.ensure_future(self._call(worker))
        call.add_done_callback(lambda done: self.cancelled.append(worker) if done.cancelled() else None)
        return call

    def calls_open(self, address: str) -> int:
        return self.busy.get(address.partition(":")[0], 0)

    async def _call(self, worker: str) -> memoryview:
        self.on_call(worker)
        answer = self.answers.get(worker, 7)
        if isinstance(answer, asyncio.Event):
            await answer.wait()
            answer = 7
        if isinstance(answer, PolychromeError):
            raise answer
        return memoryview(msgspec.msgpack.encode(CountResponse(answer, 1)))


class Bench:
    def __init__(
        self, *members: str, timeouts: CallTimeouts = TIMEOUTS, replicas: int = 1, hedge_percent_max: float = 5
    ) -> None:
        self.clock = FakeClock()
        self.membership = FakeMembership(*members)
        self.rpc = FakeRpc()
        self.workers = Workers(
            cast(Membership, self.membership),
            cast(RpcClient, self.rpc),
            self.clock,
            timeouts,
            replicas=replicas,
            hedge_percent_max=hedge_percent_max,
        )
        self.order = rank("c/3", list(members))

    async def count(self) -> int:
        return (await self.workers.count(CountRequest(SHARD))).count


async def until(met: Callable[[], bool]) -> None:
    """Let other tasks run until it holds: time here is the fake clock's."""
    async with asyncio.timeout(5):
        while not met():  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_the_first_in_rank_is_asked() -> None:
    bench = Bench("w1", "w2", "w3")
    assert await bench.count() == 7
    assert bench.rpc.asked == [bench.order[0]]


@pytest.mark.parametrize("error", [Unavailable("lost"), WrongWorker("draining"), DeadlineExceeded("slow")])
async def test_the_next_in_rank_answers_for_one_that_fails(error: PolychromeError) -> None:
    bench = Bench("w1", "w2", "w3")
    bench.rpc.answers[bench.order[0]] = error
    assert await bench.count() == 7
    assert bench.rpc.asked == bench.order[:2]
    await bench.count()
    assert bench.rpc.asked[2:] == [bench.order[1]], "a worker that has just failed is ranked last"
    bench.clock.time += TIMEOUTS.suspect_s
    bench.rpc.answers.clear()
    await bench.count()
    assert bench.rpc.asked[3:] == [bench.order[0]], "and trusted again after a while"


@pytest.mark.parametrize("error", [Gone("deleted"), InvalidArgument("bad")])
async def test_an_answer_that_is_an_error_is_not_asked_for_again(error: PolychromeError) -> None:
    bench = Bench("w1", "w2")
    bench.rpc.answers[bench.order[0]] = error
    with pytest.raises(type(error)):
        await bench.count()
    assert len(bench.rpc.asked) == 1


async def test_damage_that_a_worker_met_is_looked_for_at_one_other_worker() -> None:
    """The file on its disk may be what is damaged. What two have found is what the bucket holds."""
    bench = Bench("w1", "w2", "w3")
    bench.rpc.answers[bench.order[0]] = Damaged("bad")
    assert await bench.count() == 7
    assert bench.rpc.asked == bench.order[:2]
    await bench.count()
    assert bench.rpc.asked[2] == bench.order[0], "such a worker is not ranked last: other shards are well"
    bench.rpc.asked.clear()
    bench.rpc.answers[bench.order[1]] = Damaged("bad, too")
    with pytest.raises(Damaged, match="too"):
        await bench.count()
    assert bench.rpc.asked == bench.order[:2]


async def test_damage_is_said_when_no_other_worker_answers() -> None:
    bench = Bench("w1", "w2", "w3")
    bench.rpc.answers = dict(zip(bench.order, [Damaged("bad"), Unavailable("x"), WrongWorker("y")], strict=True))
    with pytest.raises(Damaged):
        await bench.count()
    bench = Bench("w1")
    bench.rpc.answers["w1"] = Damaged("bad")
    with pytest.raises(Damaged):
        await bench.count()


async def test_a_single_worker_that_is_restarted_is_waited_for() -> None:
    bench = Bench("w1")
    bench.rpc.answers["w1"] = Unavailable("connection refused")

    def restarted_after_a_while(worker: str) -> None:
        if len(bench.rpc.asked) == 20:
            bench.membership.found = [Member("w2", "w2:1")]

    bench.rpc.on_call = restarted_after_a_while
    assert await bench.count() == 7
    assert bench.rpc.asked[-1] == "w2"


async def test_a_worker_that_joins_late_is_waited_for() -> None:
    bench = Bench()
    counting = asyncio.create_task(bench.count())
    await until(lambda: bench.membership.reads >= 3)
    bench.membership.found = [Member("w1", "w1:1")]
    assert await counting == 7


async def test_nobody_answering_is_unavailable_after_the_failover_time() -> None:
    bench = Bench("w1", "w2")
    bench.rpc.answers = {"w1": Unavailable("refused"), "w2": WrongWorker("draining")}
    began = bench.clock.time
    with pytest.raises(Unavailable):
        await bench.count()
    assert TIMEOUTS.failover_s * 0.9 < bench.clock.time - began <= TIMEOUTS.failover_s


async def test_membership_that_cannot_be_read_is_unavailable_at_once() -> None:
    bench = Bench()
    bench.membership.failure = Unavailable("Redis is away")
    began = bench.clock.time
    with pytest.raises(Unavailable, match="Redis is away"):
        await bench.count()
    assert bench.clock.time == began


async def test_a_draining_worker_is_not_asked() -> None:
    bench = Bench("w1", "w2")
    bench.membership.found[0] = Member("w1", "w1:1", draining=True)
    await bench.count()
    await bench.count()
    assert set(bench.rpc.asked) == {"w2"}


async def test_a_slow_worker_is_overtaken_and_told_to_stop() -> None:
    bench = Bench("w1", "w2", "w3")
    bench.rpc.answers[bench.order[0]] = asyncio.Event()
    assert await bench.count() == 7
    assert bench.rpc.asked == bench.order[:2]
    await until(lambda: bench.rpc.cancelled == [bench.order[0]])


async def ask_all(bench: Bench, counts: int) -> list[asyncio.Task[int]]:
    """Calls at once to workers that do not answer, until each has been found slow."""
    await bench.count()
    bench.rpc.asked.clear()
    bench.rpc.answers.update({worker: asyncio.Event() for worker in bench.order})
    before = slow_calls()
    counting = [asyncio.create_task(bench.count()) for _ in range(counts)]
    await until(lambda: slow_calls() - before >= counts)
    return counting


def hedges(outcome: str) -> float:
    return float(HEDGES.labels(outcome)._value.get())


def slow_calls() -> float:
    return hedges("sent") + hedges("over_budget") + hedges("costly")


async def end(counting: list[asyncio.Task[int]], bench: Bench) -> None:
    for event in bench.rpc.answers.values():
        assert isinstance(event, asyncio.Event)
        event.set()
    assert await asyncio.gather(*counting) == [7] * len(counting)


async def test_when_all_workers_are_slow_a_few_per_cent_of_the_calls_are_made_twice() -> None:
    bench = Bench("w1", "w2", "w3")
    sent, refused = hedges("sent"), hedges("over_budget")
    counting = await ask_all(bench, 200)
    await asyncio.wait(counting, timeout=5 * TIMEOUTS.hedge_after_s)
    assert len(bench.rpc.asked) == 200 + 10
    assert hedges("sent") == sent + 10
    assert hedges("over_budget") == refused + 190, "each call once, however often it tries"
    await end(counting, bench)


async def test_without_a_share_nothing_is_hedged() -> None:
    bench = Bench("w1", "w2", hedge_percent_max=0)
    counting = await ask_all(bench, 50)
    assert len(bench.rpc.asked) == 50
    await end(counting, bench)


async def test_a_slow_call_that_is_costly_is_not_made_twice() -> None:
    bench = Bench("w1", "w2", "w3")
    bench.rpc.answers[bench.order[0]] = slow = asyncio.Event()
    counting = asyncio.create_task(bench.workers.count(CountRequest(SHARD, Selection(where=DocumentRegex("a")))))
    await asyncio.wait([counting], timeout=5 * TIMEOUTS.hedge_after_s)
    assert bench.rpc.asked == bench.order[:1]
    slow.set()
    await counting


async def test_a_silent_worker_that_is_listed_no_more_is_gone_past_without_any_budget() -> None:
    bench = Bench("w1", "w2", "w3", hedge_percent_max=0)
    await bench.count()
    bench.rpc.answers[bench.order[0]] = asyncio.Event()
    counting = [asyncio.create_task(bench.count()) for _ in range(20)]
    await asyncio.wait(counting, timeout=2 * TIMEOUTS.hedge_after_s)
    assert not any(one.done() for one in counting)
    bench.membership.found = [member for member in bench.membership.found if member.id != bench.order[0]]
    (loop,) = bench.workers.loops
    polling = asyncio.create_task(loop())
    assert await asyncio.gather(*counting) == [7] * 20
    assert bench.rpc.asked == [bench.order[0]] * 21 + [bench.order[1]] * 20
    polling.cancel()


async def test_a_draining_worker_is_given_the_time_to_answer() -> None:
    bench = Bench("w1", "w2", hedge_percent_max=0)
    bench.rpc.answers[bench.order[0]] = slow = asyncio.Event()
    counting = asyncio.create_task(bench.count())
    await until(lambda: bool(bench.rpc.asked))
    bench.membership.found = [
        Member(each.id, each.address, each.id == bench.order[0]) for each in bench.membership.found
    ]
    (loop,) = bench.workers.loops
    polling = asyncio.create_task(loop())
    await asyncio.wait([counting], timeout=5 * TIMEOUTS.hedge_after_s)
    assert bench.rpc.asked == [bench.order[0]]
    slow.set()
    await counting
    polling.cancel()


async def test_failing_over_takes_nothing_from_the_budget() -> None:
    bench = Bench("w1", "w2", "w3", hedge_percent_max=0)
    bench.rpc.answers[bench.order[0]] = Unavailable("lost")
    bench.rpc.answers[bench.order[1]] = WrongWorker("draining")
    assert await asyncio.gather(*(bench.count() for _ in range(20))) == [7] * 20


async def test_no_more_than_two_workers_do_the_same_work() -> None:
    bench = Bench("w1", "w2", "w3")
    events = {worker: asyncio.Event() for worker in bench.order}
    bench.rpc.answers.update(events)
    counting = asyncio.create_task(bench.count())
    await until(lambda: len(bench.rpc.asked) == 2)
    done, _ = await asyncio.wait([counting], timeout=TIMEOUTS.hedge_after_s * 3)
    assert not done
    assert bench.rpc.asked == bench.order[:2]
    events[bench.order[0]].set()
    assert await counting == 7


async def test_a_cancelled_read_leaves_nothing_running() -> None:
    bench = Bench("w1")
    bench.rpc.answers["w1"] = asyncio.Event()
    counting = asyncio.create_task(bench.count())
    await until(lambda: bool(bench.rpc.asked))
    counting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await counting
    await until(lambda: bench.rpc.cancelled == ["w1"])


async def test_the_poll_keeps_membership_fresh_and_outlives_redis() -> None:
    bench = Bench("w1")
    assert not bench.workers.ready
    (loop,) = bench.workers.loops
    polling = asyncio.create_task(loop())
    await until(lambda: bool(bench.workers.ready))
    bench.membership.failure = Unavailable("away")
    reads = bench.membership.reads
    await until(lambda: bench.membership.reads >= reads + 3)
    still_ready = bool(bench.workers.ready)
    assert still_ready
    bench.membership.failure = None
    bench.membership.found = []
    await until(lambda: not bench.workers.ready)
    polling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await polling


# ---- replicas


async def test_a_busy_worker_shares_its_reads_with_the_next_in_rank() -> None:
    bench = Bench("w1", "w2", "w3", replicas=2)
    await bench.count()
    bench.rpc.busy[bench.order[0]] = 100
    await bench.count()
    bench.rpc.busy[bench.order[1]] = 100
    await bench.count()
    assert bench.rpc.asked == [bench.order[0], bench.order[1], bench.order[0]]


async def test_a_replica_that_failed_is_not_asked_because_it_has_nothing_to_do() -> None:
    bench = Bench("w1", "w2", "w3", replicas=2)
    bench.rpc.answers[bench.order[0]] = Unavailable("refused")
    await bench.count()
    bench.rpc.busy = dict.fromkeys(bench.order[1:], 100)
    await bench.count()
    assert bench.rpc.asked == [bench.order[0], bench.order[1], bench.order[1]]
