"""Room for large bodies: who waits, who does not, and that all of it is given back."""

from __future__ import annotations

import asyncio
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
