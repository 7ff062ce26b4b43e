"""The model that the embedder processes run, asked through calls like those to query workers.

1. A request's texts are cut into calls of a few dozen, two at a time for every embedder: enough to keep its threads
   busy, and little enough that other requests get their turn.
2. A call goes to the embedder with the fewest calls of this frontend. Which one answers decides nothing, and embedding
   stores nothing: when one fails, is killed or leaves, the call is simply made again, elsewhere or once it is back.
3. When none has answered a call within the failover time, the request fails.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec
import numpy as np

from frontend.concurrency import together
from frontend.embed.settings import LOCAL_MODEL
from frontend.http.errors import EmbeddingFailed
from shared.errors import PolychromeError, Unavailable, WrongWorker
from shared.process.telemetry import get_logger
from shared.rpc.embed_messages import EMBED, EmbedRequest, EmbedResponse
from shared.vectors.arrays import Vectors

if TYPE_CHECKING:
    from shared.cluster.membership import Member, Membership
    from shared.process.clock import Clock
    from shared.rpc.client import RpcClient

CALL_TEXTS_MAX: Final = 32
CALL_CHARS_MAX: Final = 1024 * 1024
CALLS_PER_EMBEDDER: Final = 2

ANOTHER_MAY_ANSWER: Final = (Unavailable, WrongWorker)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EmbedderPatience:
    """How long each kind of waiting may take, in seconds: `failover_s` the search for an embedder that answers,
    `call_s` one call, `suspect_s` how long one that failed comes last, `members_age_s` the age of the membership,
    `retry_s` the pause after a failure.
    """

    failover_s: float = 10.0
    call_s: float = 60.0
    suspect_s: float = 2.0
    members_age_s: float = 0.5
    retry_s: float = 0.1


class LocalEmbedder:
    """The embedder processes as one thing that answers."""

    model = LOCAL_MODEL

    def __init__(
        self, membership: Membership, rpc: RpcClient, clock: Clock, timeouts: EmbedderPatience | None = None
    ) -> None:
        self._membership = membership
        self._rpc = rpc
        self._clock = clock
        self._timeouts = timeouts or EmbedderPatience()
        self._members: list[Member] = []
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        self._calls: Counter[str] = Counter()
        self._suspect_until: dict[str, float] = {}

    async def embed(self, texts: Sequence[str]) -> Vectors:
        await self._read_members()
        slots = asyncio.Semaphore(CALLS_PER_EMBEDDER * max(1, len(self._members)))

        async def call(part: Sequence[str]) -> Vectors:
            async with slots:
                return await self._call(part)

        return np.concatenate(await together([call(part) for part in calls_of(texts)]))

    async def _call(self, texts: Sequence[str]) -> Vectors:
        payload = msgspec.msgpack.encode(EmbedRequest(list(texts)))
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
            data = await self._rpc.call(member.address, EMBED, payload, timeout_s=self._timeouts.call_s)
        finally:
            self._calls[member.id] -= 1
        answer = msgspec.msgpack.decode(data, type=EmbedResponse)
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
        """Read the membership unless that was just done. With Redis away those last known are asked."""
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


def calls_of(texts: Sequence[str]) -> list[Sequence[str]]:
    """Parts of at most so many texts and characters, at least one text each."""
    parts: list[Sequence[str]] = []
    start = chars = 0
    for place, text in enumerate(texts):
        if place > start and (place - start == CALL_TEXTS_MAX or chars + len(text) > CALL_CHARS_MAX):
            parts.append(texts[start:place])
            start, chars = place, 0
        chars += len(text)
    return [*parts, texts[start:]]
