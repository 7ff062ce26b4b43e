"""Room for large bodies: who waits, who does not, and that all of it is given back."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

import pytest

from frontend.http.memory_budget import MemoryBudget
from frontend.parse import body
from frontend.parse.json_text import parse
from tests.frontend.server import running


async def settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_does_not_fit_waits_for_others_to_leave() -> None:
    budget = MemoryBudget(100)
    await budget.acquire("a", 60)
    waiting = asyncio.create_task(budget.acquire("b", 50))
    await settled()
    assert not waiting.done()
    budget.release("a")
    await waiting
    assert budget.bytes == 50


async def test_the_first_is_never_made_to_wait() -> None:
    budget = MemoryBudget(100)
    for who in "ab":
        await budget.acquire(who, 50)
    later = asyncio.create_task(budget.acquire("b", 50))
    await settled()
    assert not later.done()
    await budget.acquire("a", 50)  # both at half of what they need: without this, neither would ever get on
    budget.release("a")
    await later
    assert budget.bytes == 100


async def test_one_that_gives_up_waiting_holds_up_nobody() -> None:
    budget = MemoryBudget(10)
    await budget.acquire("a", 10)
    gone = asyncio.create_task(budget.acquire("b", 10))
    last = asyncio.create_task(budget.acquire("c", 10))
    await settled()
    gone.cancel()
    budget.release("b")
    budget.release("a")
    await last
    budget.release("c")
    budget.release("nobody")
    assert budget.bytes == 0


async def test_a_tenant_leaves_memory_for_others() -> None:
    budget = MemoryBudget(100, tenant_share=0.75)
    for number in range(3):
        await budget.acquire(("noisy", number), 25, "noisy")
    excess = asyncio.create_task(budget.acquire(("noisy", 3), 25, "noisy"))
    await settled()
    assert not excess.done()
    await asyncio.wait_for(budget.acquire("quiet", 25, "quiet"), 1)
    budget.release("quiet")
    await settled()
    assert not excess.done()
    budget.release(("noisy", 1))
    await excess
    assert budget.bytes == 75


async def test_a_tenants_first_body_gets_on_beyond_the_share() -> None:
    budget = MemoryBudget(100, tenant_share=0.5)
    await budget.acquire("another", 10, "another")
    await budget.acquire("first", 25, "noisy")
    await budget.acquire("second", 25, "noisy")
    waiting = asyncio.create_task(budget.acquire("second", 10, "noisy"))
    await asyncio.wait_for(budget.acquire("first", 10, "noisy"), 1)  # or neither would ever come to its end
    assert not waiting.done()
    budget.release("first")
    await waiting


async def test_a_body_does_not_wait_behind_all_that_another_tenant_has_sent() -> None:
    budget, done = MemoryBudget(10), list[str]()

    async def body(tenant: str, number: int) -> None:
        await budget.acquire((tenant, number), 10, tenant)
        done.append(tenant)
        await asyncio.sleep(0)
        budget.release((tenant, number))

    noisy = [asyncio.create_task(body("noisy", number)) for number in range(20)]
    await settled()
    await asyncio.gather(body("quiet", 0), *noisy)
    assert done.index("quiet") <= 5
    assert len(done) == 21
    assert budget.bytes == 0


@pytest.mark.parametrize("seed", range(20))
async def test_every_body_comes_to_its_end_and_no_tenant_has_all(seed: int) -> None:
    random = Random(seed)
    budget = MemoryBudget(100, tenant_share=0.75)
    held: dict[str, int] = {}
    given_up = 0

    async def body(tenant: str, number: int) -> None:
        nonlocal given_up
        holder = (tenant, number)
        try:
            for _ in range(random.randint(1, 4)):
                async with asyncio.timeout(None if random.random() < 0.9 else 0.001):
                    await budget.acquire(holder, size := random.randint(1, 20), tenant)
                held[tenant] = held.get(tenant, 0) + size
                assert held[tenant] <= 75 + 80  # of which the longest body is 80
                await asyncio.sleep(random.random() / 1000)
        except TimeoutError:
            given_up += 1
        held[tenant] = held.get(tenant, 0) - budget.held(holder)
        budget.release(holder)

    await asyncio.wait_for(asyncio.gather(*(body(random.choice("aaaabc"), n) for n in range(60))), 10)
    assert budget.bytes == 0


async def test_large_bodies_at_once_are_parsed_one_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: list[int] = []

    def watched(data: bytes, rows: str | None, **options: Any) -> Any:
        at_once.append(rooms.bytes)
        return parse(data, rows, **options)

    monkeypatch.setattr(body, "parse", watched)
    monkeypatch.setattr("frontend.http.request.PARSED_BODIES", 1)
    padded = b'{"name": "abc", "x": "' + b"y" * 600_000 + b'"}'
    async with running(body_bytes_max=1_000_000) as server:
        bodies = server.server.edge.bodies
        rooms = bodies.parsed
        answers = await asyncio.gather(*(server.client.post("/api/v2/tenants", content=padded) for _ in range(5)))
        assert sorted(answer.status_code for answer in answers) == [200, 409, 409, 409, 409]
        assert at_once == [len(padded)] * 5
        assert (rooms.bytes, bodies.receiving.bytes) == (0, 0)
