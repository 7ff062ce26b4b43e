"""Requests that are admitted by the quotas of their tenants, over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import httpx
import numpy as np
import pytest

from frontend.admission.admission import Admission, tokens_of
from frontend.admission.known_quotas import KnownQuotas
from frontend.embed.texts import TextEmbedding
from frontend.parse.selectors import QueryTexts
from frontend.request_limits import RequestLimits
from shared.catalog import Collection
from shared.errors import RateLimited
from shared.process import metering
from shared.process.clock import SystemClock
from shared.tenancy.quotas import Quota, Quotas, Resolved, TenantRecord
from shared.vectors.arrays import Vectors
from tests.frontend.fakes import COLLECTION_ID, FakePlans, new_collection, new_context, one_frontend
from tests.frontend.server import client_of

TENANT = "default_tenant"
PATH = f"/api/v2/tenants/{TENANT}/databases/default_database/collections/{COLLECTION_ID}"
RECORD = {"ids": ["a"], "embeddings": [[1.0, 0.0]]}


class StoppedClock(SystemClock):
    """Time passes only when somebody waits for it."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now_s += seconds


@asynccontextmanager
async def served(
    quotas: Quotas, collection: Quotas | None = None
) -> AsyncIterator[tuple[httpx.AsyncClient, Any, StoppedClock]]:
    """A client, the context behind it, and its clock, of a tenant with these quotas."""
    record = TenantRecord(TENANT, collections={COLLECTION_ID: collection} if collection else {})
    context, clock = new_context(new_collection()), StoppedClock()
    known = KnownQuotas(FakePlans({TENANT: Resolved({}, quotas, record)}), context.config)
    context.admission = Admission(known, clock, one_frontend)
    await context.admission.look()
    async with client_of(context) as client:
        yield client, context, clock


def is_rate_limited(answer: httpx.Response) -> bool:
    if answer.status_code != 429:
        return False
    assert answer.json() == {"error": "RateLimitError", "message": "Too many requests; backoff and try again"}
    assert int(answer.headers["retry-after"]) >= 1
    return True


async def test_writes_beyond_their_rate_are_refused_and_reads_are_not() -> None:
    async with served({Quota.WRITES_PER_S: 1}) as (client, context, clock):
        answers = [await client.post(PATH + "/upsert", json=RECORD) for _ in range(4)]
        assert [is_rate_limited(answer) for answer in answers] == [False, False, True, True]
        assert (await client.get(PATH + "/count")).status_code == 200
        clock.now_s += 1
        assert (await client.post(PATH + "/upsert", json=RECORD)).status_code == 200
        assert len(context.log.appends) == 3


async def test_a_request_waits_a_moment_rather_than_be_refused() -> None:
    async with served({Quota.READS_PER_S: 10}) as (client, _, clock):
        for _ in range(40):
            assert (await client.get(PATH + "/count")).status_code == 200
        assert clock.slept == pytest.approx([0.1] * 20)


async def test_a_collection_has_a_rate_of_its_own() -> None:
    async with served({Quota.READS_PER_S: 1000}, {Quota.READS_PER_S: 1}) as (client, _, _clock):
        assert [(await client.get(PATH + "/count")).status_code for _ in range(3)] == [200, 200, 429]
        spelled = PATH.replace(COLLECTION_ID, COLLECTION_ID.upper())
        assert is_rate_limited(await client.get(spelled + "/count"))


async def test_no_body_is_read_of_a_request_that_is_refused() -> None:
    async with served({Quota.BYTES_IN_PER_S: 100}) as (client, _, clock):
        large = {"ids": ["a"], "embeddings": [[1.0, 0.0]], "documents": ["x" * 1000]}
        assert (await client.post(PATH + "/upsert", json=large)).status_code == 200

        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(f"POST {PATH}/upsert HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n".encode())
        assert (await asyncio.wait_for(reader.readline(), 10)).startswith(b"HTTP/1.1 429 ")
        writer.close()
        clock.now_s += 12
        assert (await client.post(PATH + "/upsert", json=RECORD)).status_code == 200


async def test_a_body_that_was_not_announced_is_charged_when_it_was_read() -> None:
    async with served({Quota.BYTES_IN_PER_S: 100}) as (client, _, _clock):

        async def chunks() -> AsyncIterator[bytes]:
            yield b'{"ids": ["a"], "embeddings": [[1.0, 0.0]], "documents": ["'
            yield b"x" * 1000 + b'"]}'

        headers = {"content-type": "application/json"}
        assert (await client.post(PATH + "/upsert", content=chunks(), headers=headers)).status_code == 200
        assert is_rate_limited(await client.post(PATH + "/upsert", json=RECORD))


async def test_answers_are_charged_when_they_were_given() -> None:
    async with served({Quota.BYTES_OUT_PER_S: 1}) as (client, _, _clock):
        assert (await client.post(PATH + "/get", json={})).status_code == 200
        assert is_rate_limited(await client.get(PATH + "/count"))


@pytest.mark.parametrize("concurrency", [0, 1])
async def test_requests_at_once_are_bounded_and_give_their_place_back(concurrency: int) -> None:
    async with served({Quota.CONCURRENCY: concurrency}) as (client, context, _clock):
        held, going = asyncio.Event(), asyncio.Event()
        resolve = context.rows.resolve

        async def slow(*args: Any) -> Any:
            going.set()
            await held.wait()
            return await resolve(*args)

        context.rows.resolve = slow
        first = asyncio.create_task(client.get(PATH + "/count"))
        if concurrency:
            await going.wait()
        assert is_rate_limited(await client.get(PATH + "/count"))
        held.set()
        assert (await first).status_code == (200 if concurrency else 429)
        for _ in range(3):
            assert (await client.get(PATH + "/count")).status_code == (200 if concurrency else 429)


async def test_a_broken_request_gives_its_place_back() -> None:
    async with served({Quota.CONCURRENCY: 1}) as (client, _, _clock):
        for _ in range(3):
            assert (await client.post(PATH + "/upsert", content=b"{")).status_code == 400


async def test_routes_that_cost_nothing_and_other_tenants_are_not_bounded() -> None:
    async with served({Quota.READS_PER_S: 0, Quota.WRITES_PER_S: 0}) as (client, _, _clock):
        assert is_rate_limited(await client.get(PATH + "/count"))
        assert (await client.get("/api/v2/heartbeat")).status_code == 200
        assert (await client.get("/api/v2/auth/identity")).status_code == 200
        assert not is_rate_limited(await client.get(PATH.replace(TENANT, "other") + "/count"))


def test_tokens_are_counted_by_bytes() -> None:
    assert tokens_of(["", "a", "abcd", "abcde", "ä" * 4]) == 0 + 1 + 1 + 2 + 2


class Embedding:
    """Embeds everything, and says that a text has ten tokens, or (`tells` false) nothing."""

    def __init__(self, *, tells: bool) -> None:
        self._tells = tells

    async def embed(self, _collection: Collection, texts: Sequence[str]) -> Vectors:
        if self._tells:
            metering.count_tokens(10 * len(texts))
        return np.zeros((len(texts), 2), np.float32)


@pytest.mark.parametrize(("tells", "wait_s"), [(True, 8.0), (False, 98.0)])
async def test_embedded_tokens_are_those_that_the_model_tells_or_else_estimated(tells: bool, wait_s: float) -> None:
    quotas = Resolved({}, {Quota.EMBEDDING_TOKENS_PER_S: 1}, TenantRecord(TENANT))
    clock = StoppedClock()
    admission = Admission(KnownQuotas(FakePlans({TENANT: quotas}), RequestLimits()), clock, one_frontend)
    await admission.look()
    await admission.known.of(TENANT)
    texts = TextEmbedding(Embedding(tells=tells), admission)  # type: ignore[arg-type]  # all that it calls
    metering.current.set(metering.Meter())
    given = QueryTexts(["x" * 400])
    await texts.query_vectors(new_collection(), given, None)
    with pytest.raises(RateLimited) as refused:
        await texts.query_vectors(new_collection(), given, None)
    assert refused.value.retry_after_s == wait_s
    await texts.query_vectors(new_collection(tenant="other"), given, None)
    clock.now_s += wait_s
    await texts.query_vectors(new_collection(), given, None)
