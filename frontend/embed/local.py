"""Embedding by the embedder processes, which are called as query workers are.

1. A request's texts are cut into batches of a few dozen, each of which is a call; two calls at a time for every
   embedder: enough to keep its threads busy, and little enough that other requests get their turn.
2. A call goes to the embedder with the fewest calls of this frontend. Any of them can answer, and embedding stores
   nothing: when an embedder fails, is killed or leaves, the call is made again, at another one or once it is back.
3. When no embedder has answered a call within the failover time, the request fails.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from frontend.embed.settings import LOCAL_MODEL
from frontend.http.errors import EmbeddingFailed
from shared.errors import PolychromeError, Unavailable, WrongWorker
from shared.process.concurrency import together
from shared.process.metering import count_tokens
from shared.process.telemetry import get_logger
from shared.rpc.embed_messages import EMBED, EmbedRequest
from shared.vectors.arrays import Vectors

if TYPE_CHECKING:
    from shared.cluster.membership import Member, Membership
    from shared.process.clock import Clock
    from shared.rpc.client import RpcClient

BATCH_TEXTS_MAX: Final = 32
"""Most texts in one call."""

BATCH_CHARS_MAX: Final = 1024 * 1024
"""Most characters in one call, unless a single text has more."""

CALLS_PER_EMBEDDER: Final = 2
"""Calls of one request in flight at a time, for each embedder."""

ANOTHER_MAY_ANSWER: Final = (Unavailable, WrongWorker)
"""Failures of one embedder that say nothing about what another would answer."""

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EmbedderTimeouts:
    """Longest time of each kind of waiting, in seconds.

    `failover_s` bounds the search for an embedder that answers, `call_s` one call; an embedder that failed is asked
    last for `suspect_s`; membership is read again when it is `members_age_s` old; `retry_s` is the pause after a
    failure.
    """

    failover_s: float = 10.0
    call_s: float = 60.0
    suspect_s: float = 2.0
    members_age_s: float = 0.5
    retry_s: float = 0.1


class LocalEmbedder:
    """The embedder processes of the cluster as one `Embedder`."""

    model = LOCAL_MODEL

    def __init__(
        self, membership: Membership, rpc: RpcClient, clock: Clock, timeouts: EmbedderTimeouts | None = None
    ) -> None:
        self._membership = membership
        self._rpc = rpc
        self._clock = clock
        self._timeouts = timeouts or EmbedderTimeouts()
        self._members: list[Member] = []
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        self._calls: Counter[str] = Counter()
        self._suspect_until: dict[str, float] = {}

    async def embed(self, texts: Sequence[str]) -> Vectors:
        await self._read_members()
        in_flight = asyncio.Semaphore(CALLS_PER_EMBEDDER * max(1, len(self._members)))

        async def call(batch: Sequence[str]) -> Vectors:
            async with in_flight:
                return await self._call(batch)

        return np.concatenate(await together([call(batch) for batch in batches_of(texts)]))

    async def _call(self, texts: Sequence[str]) -> Vectors:
        """The vectors of one batch, by whichever embedder answers. Raises EmbeddingFailed when none does in time."""
        payload = EMBED.encode_request(EmbedRequest(list(texts)))
        deadline = self._clock.monotonic() + self._timeouts.failover_s
        while True:
            member = self._least_busy()
            if member is not None:
                try:
                    return await self._ask(member, payload)
                except ANOTHER_MAY_ANSWER as error:
                    self._distrust(member, error)
            if self._clock.monotonic() + self._timeouts.retry_s >= deadline:
                raise EmbeddingFailed(LOCAL_MODEL, "is unavailable, as no embedder answers")
            await self._clock.sleep(self._timeouts.retry_s)
            await self._read_members()

    async def _ask(self, member: Member, payload: bytes) -> Vectors:
        self._calls[member.id] += 1
        try:
            data = await self._rpc.call(member.address, EMBED.name, payload, timeout_s=self._timeouts.call_s)
        finally:
            self._calls[member.id] -= 1
        answer = EMBED.decode_response(data)
        count_tokens(answer.tokens)
        return np.frombuffer(answer.embeddings, "<f4").reshape(-1, answer.dimension)

    def _least_busy(self) -> Member | None:
        now = self._clock.monotonic()

        def order(member: Member) -> tuple[bool, int]:
            return self._suspect_until.get(member.id, 0.0) > now, self._calls[member.id]

        return min(self._members, key=order, default=None)

    def _distrust(self, member: Member, error: PolychromeError) -> None:
        log.info("embedder_failed", embedder=member.id, code=error.code, message=error.message)
        self._suspect_until[member.id] = self._clock.monotonic() + self._timeouts.suspect_s

    async def _read_members(self) -> None:
        """Reads the membership unless it was just read. While Redis is away the members last known are asked."""
        async with self._reading:
            now = self._clock.monotonic()
            if self._read_at is not None and now - self._read_at < self._timeouts.members_age_s:
                return
            try:
                found = await self._membership.members()
            except Unavailable as error:
                log.warning("membership_unavailable", message=error.message)
                return
            self._members = [member for member in found if not member.draining]
            self._read_at = now
            known = {member.id for member in self._members}
            self._calls = Counter({member: calls for member, calls in self._calls.items() if member in known or calls})
            self._suspect_until = {member: until for member, until in self._suspect_until.items() if member in known}


def batches_of(texts: Sequence[str]) -> list[Sequence[str]]:
    """The texts cut, in their order, into batches of at most `BATCH_TEXTS_MAX` texts and `BATCH_CHARS_MAX` characters,
    at least one text each.
    """
    batches: list[Sequence[str]] = []
    start = chars = 0
    for place, text in enumerate(texts):
        if place > start and (place - start == BATCH_TEXTS_MAX or chars + len(text) > BATCH_CHARS_MAX):
            batches.append(texts[start:place])
            start, chars = place, 0
        chars += len(text)
    return [*batches, texts[start:]]
