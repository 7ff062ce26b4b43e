"""An OpenAI-compatible endpoint, well and ill."""

import random
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from frontend.embed import settings as embedding_settings
from frontend.embed.endpoint import PAUSE_MAX_S, EndpointEmbedder, pause_s
from frontend.http.errors import EmbeddingFailed
from shared.errors import Backoff, InvalidArgument, PolychromeError
from shared.process.clock import SystemClock
from tests.frontend.embed.endpoint import Endpoint, answer, items, running_endpoint, status, vector_of, vectors

SECRET = "sk-not-for-anybody"


class Patient(SystemClock):
    """Pauses are noted and not made."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    async with running_endpoint() as endpoint:
        yield endpoint


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def clock() -> Patient:
    return Patient()


def embedder(
    endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient, key: str | None = SECRET, **more: Any
) -> EndpointEmbedder:
    settings = embedding_settings.Endpoint(url=endpoint.url, model="maker/small", **more)
    return EndpointEmbedder("far", settings, key, http, clock, random.Random(1))


async def test_texts_go_out_in_batches_and_come_back_in_order(
    endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient
) -> None:
    far = embedder(endpoint, http, clock, batch=4)
    texts = ["x" * n for n in range(1, 11)]
    found = await far.embed(texts)
    assert found.tolist() == [vector_of(text) for text in texts]
    assert sorted(len(body["input"]) for body in endpoint.asked) == [2, 4, 4]
    assert {body["model"] for body in endpoint.asked} == {"maker/small"}
    assert set(endpoint.keys) == {f"Bearer {SECRET}"}
    assert far.model == "small"


async def test_without_a_key_none_is_sent(endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient) -> None:
    await embedder(endpoint, http, clock, key=None).embed(["a"])
    assert endpoint.keys == [None]
    assert "dimensions" not in endpoint.asked[0]


async def test_dimensions_are_asked_for_and_insisted_on(
    endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient
) -> None:
    far = embedder(endpoint, http, clock, dimensions=5)
    assert (await far.embed(["a"])).shape == (1, 5)
    assert endpoint.asked[0]["dimensions"] == 5
    endpoint.replies = [items([1.0, 2.0])]
    with pytest.raises(EmbeddingFailed):
        await far.embed(["a"])


@pytest.mark.parametrize("code", [429, 500, 502, 503])
async def test_passing_failures_are_tried_again(
    endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient, code: int
) -> None:
    endpoint.replies = [status(code), status(code, Retry_After="2")]
    assert (await embedder(endpoint, http, clock).embed(["abc"])).tolist() == [vector_of("abc")]
    first, second = clock.pauses
    assert 0 < first <= 0.5
    assert second == 2


async def test_attempts_are_limited(endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient) -> None:
    endpoint.replies = [status(500)] * 9
    with pytest.raises(EmbeddingFailed, match="'far' is unavailable, try again later; nothing was stored"):
        await embedder(endpoint, http, clock, attempts=3).embed(["abc"])
    assert len(endpoint.asked) == 3


async def test_an_endpoint_that_stays_busy_is_passed_on_as_that(
    endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient
) -> None:
    endpoint.replies = [status(429, Retry_After="120")] * 9
    with pytest.raises(Backoff) as caught:
        await embedder(endpoint, http, clock).embed(["abc"])
    assert caught.value.retry_after_s == 120
    assert len(endpoint.asked) == 1
    assert not clock.pauses


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, InvalidArgument),
        (413, InvalidArgument),
        (422, InvalidArgument),
        (401, EmbeddingFailed),
        (403, EmbeddingFailed),
        (404, EmbeddingFailed),
        (307, EmbeddingFailed),
    ],
)
async def test_refusals_fail_at_once_and_keep_their_reason(
    endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient, code: int, error: type[PolychromeError]
) -> None:
    endpoint.replies = [status(code, Location=endpoint.url)]
    with pytest.raises(error) as caught:
        await embedder(endpoint, http, clock).embed(["abc"])
    assert len(endpoint.asked) == 1
    assert "secret" not in caught.value.message
    assert SECRET not in caught.value.message
    assert endpoint.url not in caught.value.message
    assert "nothing was stored" in caught.value.message


@pytest.mark.parametrize(
    "reply",
    [
        items([1.0, 2.0]),
        items([1.0, 2.0], [1.0, 2.0], [1.0, 2.0]),
        items([1.0, 2.0], [1.0]),
        items([1.0, "2"], [1.0, 2.0]),
        items(None, [1.0]),
        items([], []),
        answer({"data": [{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [1.0]}]}),
        answer({"data": [{"index": 1, "embedding": [1.0]}, {"index": 2, "embedding": [1.0]}]}),
        answer({"data": "none"}),
        answer([]),
        answer({}),
    ],
)
async def test_wrong_answers_are_no_vectors(
    endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient, reply: Any
) -> None:
    endpoint.replies = [reply]
    with pytest.raises(EmbeddingFailed, match="answered with something other than one vector per text"):
        await embedder(endpoint, http, clock).embed(["a", "b"])
    assert len(endpoint.asked) == 1


async def test_batches_of_different_dimensions_are_no_vectors(
    endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient
) -> None:
    endpoint.replies = [items([1.0, 2.0]), vectors]
    with pytest.raises(EmbeddingFailed):
        await embedder(endpoint, http, clock, batch=1, concurrency=1).embed(["a", "b"])


async def test_a_slow_endpoint_is_given_up(endpoint: Endpoint, http: aiohttp.ClientSession, clock: Patient) -> None:
    endpoint.stuck = True
    with pytest.raises(EmbeddingFailed, match="unavailable"):
        await embedder(endpoint, http, clock, timeout_s=0.05, attempts=2).embed(["a"])
    assert len(endpoint.asked) == 2


async def test_an_endpoint_that_is_not_there_is_given_up(http: aiohttp.ClientSession, clock: Patient) -> None:
    async with running_endpoint() as gone:
        pass
    with pytest.raises(EmbeddingFailed, match="unavailable"):
        await embedder(gone, http, clock).embed(["a"])
    assert len(clock.pauses) == 2


def test_pauses_double_up_to_a_limit_unless_the_endpoint_asks_for_one() -> None:
    chance = random.Random(1)
    pauses = [pause_s(attempt, None, chance) or 0 for attempt in range(1, 10)]
    assert all(0 < pause <= PAUSE_MAX_S for pause in pauses)
    assert pauses[0] <= 0.5
    assert pauses[-1] >= PAUSE_MAX_S / 2
    assert pause_s(1, 3.0, chance) == 3.0
    assert pause_s(1, PAUSE_MAX_S + 1, chance) is None
