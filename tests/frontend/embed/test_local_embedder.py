"""Calls to embedder processes: shared out, and made again when one is lost."""

import asyncio

import msgspec
import numpy as np
import pytest

from frontend.embed.local import BATCH_CHARS_MAX, BATCH_TEXTS_MAX, EmbedderTimeouts, LocalEmbedder, batches_of
from frontend.http.errors import EmbeddingFailed
from shared.cluster.membership import Member
from shared.errors import Backoff, PolychromeError, Unavailable, WrongWorker
from shared.process.clock import SystemClock
from shared.rpc.embed_messages import EMBED, EmbedRequest, EmbedResponse

TIMEOUTS = EmbedderTimeouts(failover_s=0.2, retry_s=0.01, members_age_s=0)


class Members:
    def __init__(self, *names: str) -> None:
        self.listed = [Member(name, name) for name in names]
        self.away = False

    async def members(self) -> list[Member]:
        if self.away:
            raise Unavailable("Redis is away")
        return self.listed


class Calls:
    """Answers with the texts' lengths. `failures` of an address are raised by its next calls."""

    def __init__(self) -> None:
        self.failures: dict[str, list[PolychromeError]] = {}
        self.made: list[tuple[str, int]] = []
        self.running = self.most = 0
        self.first = asyncio.Event()

    async def call(self, address: str, method: str, payload: bytes, *, timeout_s: float) -> memoryview:
        assert method == EMBED.name
        texts = msgspec.msgpack.decode(payload, type=EmbedRequest).texts
        self.made.append((address, len(texts)))
        self.first.set()
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(0)
        self.running -= 1
        if self.failures.get(address):
            raise self.failures[address].pop(0)
        vectors = np.array([[len(text), 1] for text in texts], "<f4")
        return memoryview(msgspec.msgpack.encode(EmbedResponse(vectors.tobytes(), 2)))


def local(members: Members, calls: Calls) -> LocalEmbedder:
    return LocalEmbedder(members, calls, SystemClock(), TIMEOUTS)  # type: ignore[arg-type]


async def test_texts_are_shared_out_and_come_back_in_order() -> None:
    members, calls = Members("a", "b"), Calls()
    texts = ["x" * (n % 97) for n in range(10 * BATCH_TEXTS_MAX + 1)]
    vectors = await local(members, calls).embed(texts)
    assert vectors[:, 0].tolist() == [len(text) for text in texts]
    assert {address for address, _ in calls.made} == {"a", "b"}
    assert calls.most == 4


@pytest.mark.parametrize("error", [Unavailable("killed"), WrongWorker("draining")])
async def test_a_call_that_is_lost_is_made_again_elsewhere(error: PolychromeError) -> None:
    members, calls = Members("a", "b"), Calls()
    calls.failures["a"] = [error] * 100
    assert (await local(members, calls).embed(["abc"])).tolist() == [[3, 1]]
    assert [address for address, _ in calls.made] == ["a", "b"]


async def test_the_only_embedder_may_come_back_under_another_name() -> None:
    members, calls = Members("old"), Calls()
    calls.failures["old"] = [Unavailable("killed")] * 100
    asked = asyncio.create_task(local(members, calls).embed(["abc"]))
    await calls.first.wait()
    members.listed = [Member("old", "old"), Member("new", "new")]
    assert (await asked).tolist() == [[3, 1]]


async def test_nobody_there_fails_after_a_while() -> None:
    with pytest.raises(EmbeddingFailed, match="is unavailable, as no embedder answers"):
        await local(Members(), Calls()).embed(["abc"])


async def test_a_draining_embedder_is_not_asked() -> None:
    members, calls = Members("a"), Calls()
    members.listed = [Member("a", "a", draining=True), Member("b", "b")]
    await local(members, calls).embed(["abc"])
    assert calls.made == [("b", 1)]


async def test_too_much_waiting_is_passed_on() -> None:
    members, calls = Members("a"), Calls()
    calls.failures["a"] = [Backoff("too many")]
    with pytest.raises(Backoff):
        await local(members, calls).embed(["abc"])


async def test_with_redis_away_the_last_known_are_asked() -> None:
    members, calls = Members("a"), Calls()
    embedder = local(members, calls)
    await embedder.embed(["abc"])
    members.away = True
    assert (await embedder.embed(["abcd"])).tolist() == [[4, 1]]


def test_calls_are_cut_by_texts_and_by_characters() -> None:
    assert batches_of(["a"]) == [["a"]]
    texts = [str(n) for n in range(3 * BATCH_TEXTS_MAX - 1)]
    parts = batches_of(texts)
    assert [len(part) for part in parts] == [BATCH_TEXTS_MAX, BATCH_TEXTS_MAX, BATCH_TEXTS_MAX - 1]
    assert [text for part in parts for text in part] == texts
    long = "x" * (BATCH_CHARS_MAX + 1)
    assert [len(part) for part in batches_of([long, long, "a", "b"])] == [1, 1, 2]
