"""Who gets a thread, and who gets which vector: over a model that says which texts it saw."""

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

import numpy as np
import pytest

from embedder.batching import Batcher, PendingRequest, next_pack
from embedder.weights import WIDTH
from shared.errors import Backoff
from shared.vectors.arrays import TokenIds, Vectors


def text(number: int, length: int = 4) -> TokenIds:
    return np.full(length, number, np.int32)


class Recorder:
    """A text's vector is its first token. Runs only while `gate` is open."""

    def __init__(self) -> None:
        self.packs: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()

    def embed(self, texts: Sequence[TokenIds]) -> Vectors:
        self.packs.append([int(ids[0]) for ids in texts])
        assert self.gate.wait(20)
        if any(ids[0] == 666 for ids in texts):
            raise ValueError("no such number")
        return np.repeat(np.array([[ids[0]] for ids in texts], np.float32), WIDTH, axis=1)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    recorder = Recorder()
    yield recorder
    recorder.gate.set()


@asynccontextmanager
async def batching(recorder: Recorder, threads: int = 1, waiting_tokens_max: int = 1_000_000) -> AsyncIterator[Batcher]:
    with ThreadPoolExecutor(threads) as executor:
        batcher = Batcher(recorder.embed, executor, threads, waiting_tokens_max)
        yield batcher
        recorder.gate.set()
        await batcher.close()


def start(batcher: Batcher, texts: Sequence[TokenIds]) -> asyncio.Task[Vectors]:
    return asyncio.create_task(batcher.embed(texts))


async def begun(recorder: Recorder, packs: int) -> None:
    async with asyncio.timeout(20):
        while len(recorder.packs) < packs:  # noqa: ASYNC110 (a thread is waited for)
            await asyncio.sleep(0.001)


async def test_a_pack_takes_one_text_of_each_request_in_turn() -> None:
    waiting = deque(PendingRequest([text(number) for number in texts]) for texts in ([1, 2, 3], [4], [5, 6]))
    taken = [int(request.texts[index][0]) for request, index in next_pack(waiting, tokens_max=16)]
    assert taken == [1, 4, 5, 2]
    assert [int(request.texts[index][0]) for request, index in next_pack(waiting, tokens_max=16)] == [6, 3]
    assert not waiting


async def test_a_text_longer_than_a_pack_is_a_pack() -> None:
    waiting = deque([PendingRequest([text(1, 300), text(2, 300)])])
    assert len(next_pack(waiting)) == 1
    assert len(next_pack(waiting)) == 1


async def test_every_request_gets_its_own_vectors_in_its_own_order(recorder: Recorder) -> None:
    chance = np.random.default_rng(3)
    requests = [[text(n, int(chance.integers(2, 200))) for n in chance.integers(1, 600, 40)] for _ in range(5)]
    async with batching(recorder, threads=2) as batcher:
        answers = await asyncio.gather(*map(batcher.embed, requests))
    for request, vectors in zip(requests, answers, strict=True):
        assert vectors[:, 0].tolist() == [float(ids[0]) for ids in request]
        assert vectors.shape == (40, WIDTH)


async def test_texts_that_arrive_together_are_computed_together(recorder: Recorder) -> None:
    async with batching(recorder) as batcher:
        recorder.gate.clear()
        first = start(batcher, [text(1)])
        await begun(recorder, 1)
        others = [start(batcher, [text(number)]) for number in range(2, 12)]
        await asyncio.sleep(0)
        recorder.gate.set()
        await asyncio.gather(first, *others)
    assert recorder.packs == [[1], list(range(2, 12))]


async def test_one_text_does_not_wait_behind_a_thousand(recorder: Recorder) -> None:
    async with batching(recorder) as batcher:
        recorder.gate.clear()
        many = start(batcher, [text(1, 128) for _ in range(1000)])
        await begun(recorder, 1)
        one = start(batcher, [text(2, 128)])
        await asyncio.sleep(0)
        recorder.gate.set()
        await one
        assert not many.done()
        assert 2 in recorder.packs[1]
        many.cancel()


async def test_a_request_that_is_cancelled_takes_no_further_thread(recorder: Recorder) -> None:
    async with batching(recorder) as batcher:
        recorder.gate.clear()
        many = start(batcher, [text(1, 128) for _ in range(100)])
        await begun(recorder, 1)
        many.cancel()
        with pytest.raises(asyncio.CancelledError):
            await many
        recorder.gate.set()
        assert (await batcher.embed([text(2)]))[0, 0] == 2
    assert recorder.packs == [[1, 1], [2]]


async def test_a_failure_reaches_those_whose_texts_it_met_and_nobody_else(recorder: Recorder) -> None:
    async with batching(recorder) as batcher:
        with pytest.raises(ValueError, match="no such number"):
            await batcher.embed([text(666), text(1)])
        assert (await batcher.embed([text(7)]))[0, 0] == 7


async def test_a_model_that_gives_too_few_vectors_fails_the_request_and_does_not_leave_it_waiting() -> None:
    with ThreadPoolExecutor(1) as executor:
        batcher = Batcher(lambda texts: np.zeros((len(texts) - 1, WIDTH), np.float32), executor, 1, 1000)
        with pytest.raises(ValueError, match="shorter"):
            await asyncio.wait_for(batcher.embed([text(1), text(2)]), 5)
        await batcher.close()


async def test_too_much_waiting_is_refused_and_nothing_is_left_of_it(recorder: Recorder) -> None:
    async with batching(recorder, waiting_tokens_max=100) as batcher:
        recorder.gate.clear()
        running = start(batcher, [text(1, 256)])
        await begun(recorder, 1)
        waiting = start(batcher, [text(2, 90)])
        await asyncio.sleep(0)
        with pytest.raises(Backoff):
            await batcher.embed([text(3, 20)])
        recorder.gate.set()
        await asyncio.gather(running, waiting)
        assert (await batcher.embed([text(4, 256)]))[0, 0] == 4


async def test_no_texts_have_no_vectors(recorder: Recorder) -> None:
    async with batching(recorder) as batcher:
        assert (await batcher.embed([])).shape == (0, WIDTH)
    assert not recorder.packs
