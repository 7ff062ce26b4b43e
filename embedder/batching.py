"""Texts of many requests, made into packs for the threads that run the model.

1. A request's texts wait as token ids, the shortest first, so that equal lengths stand together.
2. Whenever a thread is free it gets a pack: one text of each waiting request in turn, until the pack is full. So texts
   that arrive together are computed together, and a single query waits behind no request of thousands of documents,
   but for the packs that the threads have begun.
3. A request is answered when its last text is done. One that was cancelled takes no further thread.

A pack of 256 tokens is as fast per token as a larger one and done in less than a tenth of a second.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Final

import numpy as np
from prometheus_client import Counter, Gauge

from embedder.weights import WIDTH
from shared.errors import Backoff
from shared.vectors.arrays import TokenIds, Vectors

PACK_TOKENS: Final = 256

TEXTS = Counter("polychrome_embedder_texts_total", "Texts embedded")
TOKENS = Counter("polychrome_embedder_tokens_total", "Tokens of the texts embedded")
PACKS = Counter("polychrome_embedder_packs_total", "Runs of the model")
WAITING = Gauge("polychrome_embedder_waiting_tokens", "Tokens of the texts that no thread has taken yet")


class Waiting:
    """A request: its texts, those still to be taken, and the vectors so far."""

    def __init__(self, texts: Sequence[TokenIds]) -> None:
        self.texts = texts
        self.vectors: Vectors = np.empty((len(texts), WIDTH), np.float32)
        self.undone = len(texts)
        self.done: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self.places = deque(sorted(range(len(texts)), key=lambda place: len(texts[place])))

    @property
    def tokens(self) -> int:
        """Of the texts that were not taken."""
        return sum(len(self.texts[place]) for place in self.places)


Pack = list[tuple[Waiting, int]]
"""Texts by request and place in it."""


def next_pack(waiting: deque[Waiting], tokens_max: int = PACK_TOKENS) -> Pack:
    """Take the next texts, one of each request in turn; at least one, however long. A request whose last text is taken
    leaves the queue; whose turn is next stands first.
    """
    pack: Pack = []
    tokens = 0
    while waiting:
        request = waiting[0]
        length = len(request.texts[request.places[0]])
        if pack and tokens + length > tokens_max:
            break
        waiting.popleft()
        pack.append((request, request.places.popleft()))
        tokens += length
        if request.places:
            waiting.append(request)
    return pack


class Batcher:
    """`embed` runs in `executor`, in at most `threads` at once, and gives one vector per text."""

    def __init__(
        self,
        embed: Callable[[Sequence[TokenIds]], Vectors],
        executor: Executor,
        threads: int,
        waiting_tokens_max: int,
    ) -> None:
        self._embed = embed
        self._executor = executor
        self._threads = threads
        self._waiting_tokens_max = waiting_tokens_max
        self._waiting_tokens = 0
        self._waiting: deque[Waiting] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def embed(self, texts: Sequence[TokenIds]) -> Vectors:
        """[texts, WIDTH]. Raises Backoff when too much is waiting; what the model raised."""
        request = Waiting(texts)
        if not texts:
            return request.vectors
        if self._waiting and self._waiting_tokens + request.tokens > self._waiting_tokens_max:
            raise Backoff("Too many texts are waiting to be embedded")
        self._waiting.append(request)
        self._count(request.tokens)
        self._fill()
        try:
            return await request.done
        finally:
            self._drop(request)

    async def close(self) -> None:
        """Wait for what the threads have begun."""
        for request in list(self._waiting):
            request.done.cancel()
            self._drop(request)
        await asyncio.gather(*self._running)

    def _fill(self) -> None:
        while self._waiting and len(self._running) < self._threads:
            task = asyncio.create_task(self._run(next_pack(self._waiting)))
            self._running.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._fill()

    async def _run(self, pack: Pack) -> None:
        pack.sort(key=lambda taken: len(taken[0].texts[taken[1]]))
        texts = [request.texts[place] for request, place in pack]
        tokens = sum(map(len, texts))
        self._count(-tokens)
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(self._executor, self._embed, texts)
        except Exception as error:  # whatever it is, it belongs to those who wait for these texts
            for request, _ in pack:
                if not request.done.done():
                    request.done.set_exception(error)
            return
        for (request, place), vector in zip(pack, vectors, strict=True):
            request.vectors[place] = vector
            request.undone -= 1
            if not request.undone and not request.done.done():
                request.done.set_result(request.vectors)
        PACKS.inc()
        TEXTS.inc(len(texts))
        TOKENS.inc(tokens)

    def _drop(self, request: Waiting) -> None:
        """Forget what of the request was not taken."""
        if request.places:
            self._count(-request.tokens)
            self._waiting.remove(request)
            request.places.clear()

    def _count(self, tokens: int) -> None:
        self._waiting_tokens += tokens
        WAITING.set(self._waiting_tokens)
