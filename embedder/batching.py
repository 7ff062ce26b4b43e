"""Texts of many requests, made into packs for the threads that run the model.

1. A request's texts wait as token ids, the shortest first, so that texts of equal length follow each other.
2. Whenever a thread is free it gets a pack: one text of each waiting request in turn, until the pack is full. So texts
   that arrive together are computed together, and a single query waits behind no request of thousands of documents,
   but for the packs that the threads have begun.
3. A request is answered when its last text is done. A cancelled request takes no further thread.

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
"""Tokens of a pack at most, unless a single text has more."""

TEXTS = Counter("polychrome_embedder_texts_total", "Texts embedded.")
TOKENS = Counter("polychrome_embedder_tokens_total", "Tokens of the texts embedded.")
PACKS = Counter("polychrome_embedder_packs_total", "Runs of the model.")
WAITING = Gauge("polychrome_embedder_waiting_tokens", "Tokens of the texts that no thread has taken yet.")


class PendingRequest:
    """A request for the vectors of `texts`: which texts no pack has taken yet, and the vectors computed so far."""

    def __init__(self, texts: Sequence[TokenIds]) -> None:
        self.texts = texts
        self.vectors: Vectors = np.empty((len(texts), WIDTH), np.float32)
        self.remaining = len(texts)
        """Texts whose vectors are not computed yet."""
        self.done: asyncio.Future[Vectors] = asyncio.get_running_loop().create_future()
        self.untaken = deque(sorted(range(len(texts)), key=lambda index: len(texts[index])))
        """Indexes of the texts that no pack has taken yet, those of the shortest first."""

    @property
    def untaken_tokens(self) -> int:
        """Tokens of the texts that no pack has taken yet."""
        return sum(len(self.texts[index]) for index in self.untaken)


Pack = list[tuple[PendingRequest, int]]
"""Texts that the model computes together, each by its request and its index there."""


def next_pack(waiting: deque[PendingRequest], tokens_max: int = PACK_TOKENS) -> Pack:
    """Takes the next texts, one of each request in turn, of `tokens_max` tokens at most; but at least one text, however
    long. A request whose last text is taken leaves the queue; the request whose turn is next stands first.
    """
    pack: Pack = []
    tokens = 0
    while waiting:
        request = waiting[0]
        length = len(request.texts[request.untaken[0]])
        if pack and tokens + length > tokens_max:
            break
        waiting.popleft()
        pack.append((request, request.untaken.popleft()))
        tokens += length
        if request.untaken:
            waiting.append(request)
    return pack


class Batcher:
    """Computes the vectors of many requests by `embed`, the model: one vector [WIDTH] per text. It runs in `executor`,
    on `threads` packs at a time at most.
    """

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
        self._waiting: deque[PendingRequest] = deque()
        self._running: set[asyncio.Task[None]] = set()

    async def embed(self, texts: Sequence[TokenIds]) -> Vectors:
        """A vector per text, [texts, WIDTH]. Raises Backoff when more than `waiting_tokens_max` tokens would wait,
        and what the model raised.
        """
        request = PendingRequest(texts)
        if not texts:
            return request.vectors
        if self._waiting and self._waiting_tokens + request.untaken_tokens > self._waiting_tokens_max:
            raise Backoff("Too many texts are waiting to be embedded")
        self._waiting.append(request)
        self._count(request.untaken_tokens)
        self._fill()
        try:
            return await request.done
        finally:
            self._drop(request)

    async def close(self) -> None:
        """Cancels what no thread has begun, and waits for the rest."""
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
        texts = [request.texts[index] for request, index in pack]
        tokens = sum(map(len, texts))
        self._count(-tokens)
        try:
            vectors = await asyncio.get_running_loop().run_in_executor(self._executor, self._embed, texts)
            for (request, index), vector in zip(pack, vectors, strict=True):
                request.vectors[index] = vector
        except Exception as error:  # whatever it is, the requests that wait for these texts have to hear of it
            for request, _ in pack:
                if not request.done.done():
                    request.done.set_exception(error)
            return
        for request, _ in pack:
            request.remaining -= 1
            if not request.remaining and not request.done.done():
                request.done.set_result(request.vectors)
        PACKS.inc()
        TEXTS.inc(len(texts))
        TOKENS.inc(tokens)

    def _drop(self, request: PendingRequest) -> None:
        """Forgets the texts of the request that no pack has taken."""
        if request.untaken:
            self._count(-request.untaken_tokens)
            self._waiting.remove(request)
            request.untaken.clear()

    def _count(self, tokens: int) -> None:
        self._waiting_tokens += tokens
        WAITING.set(self._waiting_tokens)
