"""Answers in parts."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from shared import errors
from shared.rpc.client import RpcClient
from shared.rpc.frames import ALONE_BYTES
from shared.rpc.parts import Parts, let_go
from shared.rpc.server import Call
from tests.shared.rpc.serving import Gate, echo, serving, until

LARGE = b"l" * (ALONE_BYTES + 1)


async def _all(parts: Parts) -> list[bytes]:
    return [bytes(part) async for part in parts]


async def _begun(client: RpcClient, address: str, payload: bytes = b"") -> Parts:
    return await client.begin_parts(address, "parts", payload, timeout_s=5)


class _Held(Gate):
    """The last call is the test's to answer."""

    @property
    def call(self) -> Call:
        return self.calls[-1]


async def test_parts_come_in_their_order_whatever_their_lengths() -> None:
    pieces = [b"a", LARGE, b"b", b"c", LARGE, LARGE, b"d"]
    held = Gate()
    async with serving({"parts": held}) as (_, client, address):
        begun = [client.begin_parts(address, "parts", b"", timeout_s=5) for _ in range(3)]
        await until(lambda: len(held.calls) == 3)
        for piece in pieces[:-1]:
            for call in held.calls:
                call.part(piece)
        for call in held.calls:
            call.answer(pieces[-1])
        for parts in await asyncio.gather(*begun):
            assert await _all(parts) == pieces


async def test_the_first_part_is_there_before_the_others_and_others_are_answered_in_between() -> None:
    held = _Held()
    async with serving({"parts": held, "echo": echo}) as (_, client, address):
        begun = client.begin_parts(address, "parts", b"", timeout_s=5)
        await held.entered.wait()
        held.call.part(LARGE)
        parts = await begun
        assert bytes(await client.call(address, "echo", b"x", timeout_s=5)) == b"x"
        held.call.part(b"2")
        held.call.answer(b"")
        assert await _all(parts) == [LARGE, b"2"]


async def test_an_answer_that_comes_whole_is_one_part() -> None:
    async with serving({"parts": echo}) as (_, client, address):
        assert await _all(await _begun(client, address, b"whole")) == [b"whole"]
        assert await _all(await _begun(client, address, b"")) == []


async def test_a_failure_before_the_first_part_is_the_calls() -> None:
    held = _Held()
    async with serving({"parts": held}) as (_, client, address):
        begun = client.begin_parts(address, "parts", b"", timeout_s=5)
        await held.entered.wait()
        held.call.fail(errors.Gone("no more"))
        with pytest.raises(errors.Gone, match="no more"):
            await begun


@pytest.mark.parametrize("end", ["failed", "lost"])
async def test_a_failure_between_parts_comes_behind_those_that_came(end: str) -> None:
    held = _Held()
    async with serving({"parts": held}) as (server, client, address):
        begun = client.begin_parts(address, "parts", b"", timeout_s=5)
        await held.entered.wait()
        held.call.part(b"1")
        parts = await begun
        if end == "failed":
            held.call.fail(errors.Corrupt("broken"))
        else:
            await server.close()
        arriving = aiter(parts)
        assert bytes(await anext(arriving)) == b"1"
        with pytest.raises(errors.Corrupt if end == "failed" else errors.Unavailable):
            await anext(arriving)


async def test_who_closes_the_answer_ends_the_work_on_it() -> None:
    held = _Held()
    async with serving({"parts": held}) as (_, client, address):
        begun = client.begin_parts(address, "parts", b"", timeout_s=60)
        await held.entered.wait()
        held.call.part(b"1")
        parts = await begun
        parts.close()
        await until(held.abandoned)
        held.call.part(b"2")
        assert client.calls_open(address) == 0


async def test_an_answer_that_was_taken_or_closed_is_held_by_nobody() -> None:
    """Not even until garbage is collected: answers are large, and that is seldom."""
    held = _Held()
    async with serving({"parts": held, "echo": echo}) as (_, client, address):
        gc.disable()
        try:
            gone = []
            for payload in (LARGE, b""):
                whole = await client.begin_parts(address, "echo", payload, timeout_s=5)
                assert b"".join(await _all(whole)) == payload
                gone.append(weakref.ref(whole))
                del whole
            begun = client.begin_parts(address, "parts", b"", timeout_s=60)
            await held.entered.wait()
            held.call.part(LARGE)
            closed = await begun
            closed.close()
            gone.append(weakref.ref(closed))
            del begun, closed
            await until(held.abandoned)
            assert [ref() for ref in gone] == [None] * 3
        finally:
            gc.enable()


async def test_who_gives_up_before_the_first_part_ends_the_work_on_it() -> None:
    held = _Held()
    async with serving({"parts": held}) as (_, client, address):
        begun = client.begin_parts(address, "parts", b"", timeout_s=60)
        await held.entered.wait()
        begun.cancel()
        await until(held.abandoned)


async def test_parts_that_are_together_longer_than_an_answer_may_be_end_it_and_nobody_elses() -> None:
    held = _Held()
    async with serving({"parts": held, "echo": echo}, frame_bytes_max=1 << 20) as (_, client, address):
        begun = client.begin_parts(address, "parts", b"", timeout_s=5)
        await held.entered.wait()
        beside = client.begin(address, "echo", b"x", timeout_s=5)
        for _ in range(12):
            held.call.part(b"p" * 100_000)
        parts = await begun
        with pytest.raises(errors.InvalidArgument, match="ask for less"):
            await _all(parts)
        assert bytes(await beside) == b"x"


async def test_of_two_answers_the_one_that_is_not_wanted_is_let_go() -> None:
    held = _Held()
    async with serving({"parts": held}) as (_, client, address):
        begun = [client.begin_parts(address, "parts", b"", timeout_s=60) for _ in range(2)]
        await until(lambda: len(held.calls) == 2)
        for call in held.calls:
            call.part(b"1")
        await asyncio.wait(begun)
        for answer in begun:
            let_go(answer)
        await until(held.abandoned)


async def test_parts_that_nobody_asked_for_cost_the_connection() -> None:
    held = _Held()
    async with serving({"parts": held}) as (_, client, address):
        whole = client.begin(address, "parts", b"", timeout_s=5)
        await held.entered.wait()
        held.call.part(b"1")
        with pytest.raises(errors.Unavailable):
            await whole
