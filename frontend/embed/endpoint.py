"""Embedding by an OpenAI-compatible endpoint that the operator registered.

POST {"model", "input": [texts], "encoding_format": "float"} is answered with {"data": [{"index", "embedding"}]}. A
request that fails for a passing reason (429, 5xx, a broken connection, a timeout) is sent again after a pause that
doubles, or that the endpoint asked for; any other failure is final. Redirects are not followed: they lead to hosts that
nobody configured.

An error that a client gets names the function and what may be done about it. Status and reason are in the log; keys and
texts are nowhere.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import aiohttp
import msgspec
import numpy as np

from frontend.concurrency import off_loop
from frontend.http.errors import EmbeddingFailed
from shared.errors import Backoff, InvalidArgument, PolychromeError
from shared.process.concurrency import together
from shared.process.metering import count_tokens
from shared.process.telemetry import get_logger
from shared.vectors.arrays import Vectors

if TYPE_CHECKING:
    from frontend.embed.settings import Endpoint
    from shared.process.clock import Clock

ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""Longest answer that is read."""

REASON_BYTES_MAX: Final = 300
"""Bytes of a refusal's body that go into the log."""

PAUSE_FIRST_S: Final = 0.5
"""Pause before the second attempt, in seconds; it doubles with each further one."""

PAUSE_MAX_S: Final = 10.0
"""Longest pause, in seconds. When an endpoint asks for a longer one, the request fails at once."""

BUSY: Final = 429
"""Status of an endpoint that has too much to do."""

REFUSES_THE_TEXTS: Final = frozenset({400, 413, 422})
"""Statuses of an endpoint that will never embed these texts."""

log = get_logger(__name__)


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int


class _Usage(msgspec.Struct):
    total_tokens: int = 0


class _Answer(msgspec.Struct):
    data: list[_Item]
    usage: _Usage | None = None


_ANSWER: Final = msgspec.json.Decoder(_Answer)


class _PassingError(Exception):
    """A failure that another attempt may not meet. `pause_s`: the pause that the endpoint asks for, in seconds."""

    def __init__(self, reason: str, status: int | None = None, pause_s: float | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.pause_s = pause_s


def pause_s(attempt: int, asked_s: float | None, chance: random.Random) -> float | None:
    """The pause, in seconds, between an attempt (the first is 1) and the next one; `asked_s` is the one that the
    endpoint asks for. None when that is too long to wait for.
    """
    if asked_s is not None:
        return asked_s if asked_s <= PAUSE_MAX_S else None
    return float(min(PAUSE_FIRST_S * 2 ** (attempt - 1), PAUSE_MAX_S)) * chance.uniform(0.5, 1.0)


class EndpointEmbedder:
    """An endpoint as an `Embedder`. `name` is the embedding function's, which collections select; `key` goes along as a
    bearer token.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        key: str | None,
        http: aiohttp.ClientSession,
        clock: Clock,
        chance: random.Random,
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._http = http
        self._clock = clock
        self._chance = chance
        self._in_flight = asyncio.Semaphore(endpoint.concurrency)

    @property
    def model(self) -> str:
        return self._endpoint.model.rpartition("/")[2]

    async def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, in their order: float32 [len(texts), dimension]. At least one text. Raises
        InvalidArgument for a text that the endpoint refuses, EmbeddingFailed when the endpoint is away, refuses for
        another reason or answers with something unusable, Backoff when it is busy.
        """
        size = self._endpoint.batch
        batches = [texts[start : start + size] for start in range(0, len(texts), size)]
        vectors = await together([self._embed_batch(batch) for batch in batches])
        if len({found.shape[1] for found in vectors}) != 1:
            raise self._unusable("vectors of different dimensions")
        return np.concatenate(vectors)

    async def _embed_batch(self, texts: Sequence[str]) -> Vectors:
        attempt = 0
        async with self._in_flight:
            while True:
                attempt += 1
                try:
                    data = await self._attempt(texts)
                except _PassingError as error:
                    log.warning("embedding_attempt_failed", function=self._name, attempt=attempt, reason=str(error))
                    pause = pause_s(attempt, error.pause_s, self._chance)
                    if attempt >= self._endpoint.attempts or pause is None:
                        raise self._gave_up(error) from None
                    await self._clock.sleep(pause)
                else:
                    return await off_loop(len(data), self._vectors, data, len(texts))

    async def _attempt(self, texts: Sequence[str]) -> bytes:
        """The body of a successful answer. Raises _PassingError, EmbeddingFailed, InvalidArgument."""
        body: dict[str, Any] = {"model": self._endpoint.model, "input": list(texts), "encoding_format": "float"}
        if self._endpoint.dimensions is not None:
            body["dimensions"] = self._endpoint.dimensions
        try:
            async with self._http.post(
                self._endpoint.url,
                data=msgspec.json.encode(body),
                headers={"Content-Type": "application/json", **self._headers},
                timeout=aiohttp.ClientTimeout(total=self._endpoint.timeout_s),
                allow_redirects=False,
            ) as response:
                if response.status == 200:
                    return await self._read(response)
                raise await self._refused(response)
        except (aiohttp.ClientError, TimeoutError) as error:
            raise _PassingError(f"{type(error).__name__}: {error}") from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        data = bytearray()
        async for chunk in response.content.iter_any():
            data += chunk
            if len(data) > ANSWER_BYTES_MAX:
                raise self._unusable(f"more than {ANSWER_BYTES_MAX} bytes")
        return bytes(data)

    async def _refused(self, response: aiohttp.ClientResponse) -> Exception:
        """The error that an answer without vectors means."""
        status = response.status
        if status == BUSY or status >= 500:
            return _PassingError(f"status {status}", status, _asked_pause_s(response.headers.get("Retry-After")))
        reason = (await response.content.read(REASON_BYTES_MAX)).decode("utf-8", "replace")
        log.warning("embedding_refused", function=self._name, status=status, reason=reason)
        if status in REFUSES_THE_TEXTS:
            return InvalidArgument(f"The embedding function '{self._name}' refuses the texts; nothing was stored")
        return EmbeddingFailed(self._name, "cannot be used as the server is configured")

    def _gave_up(self, error: _PassingError) -> PolychromeError:
        if error.status == BUSY:
            message = f"The embedding function '{self._name}' is busy; nothing was stored, try again later"
            return Backoff(message, max(1, round(error.pause_s or PAUSE_MAX_S)))
        return EmbeddingFailed(self._name, "is unavailable, try again later")

    def _vectors(self, data: bytes, count: int) -> Vectors:
        """The vectors in an answer's body, float32 [count, dimension], in the order of the texts. Raises
        EmbeddingFailed for anything else.
        """
        try:
            answer = _ANSWER.decode(data)
        except msgspec.MsgspecError as error:
            raise self._unusable(str(error)) from None
        items = answer.data
        if sorted(item.index for item in items) != list(range(count)):
            raise self._unusable(f"{len(items)} vectors for {count} texts, or not one for each")
        widths = {len(item.embedding) for item in items}
        if len(widths) != 1 or 0 in widths or self._endpoint.dimensions not in (None, *widths):
            raise self._unusable(f"dimensions {sorted(widths)}")
        items.sort(key=lambda item: item.index)
        if answer.usage is not None:
            count_tokens(max(0, answer.usage.total_tokens))
        with np.errstate(over="ignore"):
            return np.array([item.embedding for item in items], np.float32)

    def _unusable(self, what: str) -> EmbeddingFailed:
        log.warning("embedding_unusable", function=self._name, what=what)
        return EmbeddingFailed(self._name, "answered with something other than one vector per text")


def _asked_pause_s(header: str | None) -> float | None:
    """The seconds in a Retry-After header. None without one, and for a date, which endpoints hardly send."""
    try:
        asked = float(header or "")
    except ValueError:
        return None
    return asked if 0 <= asked < float("inf") else None
