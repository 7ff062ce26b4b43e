"""Long answers come in chunks."""

from __future__ import annotations

import asyncio
import gc
import weakref

import pytest

from shared import errors
from shared.rpc.answer_budget import FIRST_WINDOW_BYTES
from shared.rpc.chunks import Answer, ChunkStream, discard
from shared.rpc.frames import OWN_FRAME_BYTES
from tests.shared.rpc.serving import Gate, InPieces, echo, serving, stream_of, until, whole

LARGE = b"l" * (OWN_FRAME_BYTES + 1)


async def test_pieces_come_in_their_order_whatever_their_lengths() -> None:
    pieces = [b"a", LARGE, b"b", b"", b"c", LARGE, LARGE, b"d" * 3_000_000, b"e"]
    async with serving({"pieces": InPieces(pieces)}) as (_, client, address):
        begun = [client.begin_chunks(address, "pieces", b"", timeout_s=5) for _ in range(3)]
        for answer in await asyncio.gather(*begun):
            assert isinstance(answer, ChunkStream)
            assert await whole(answer) == b"".join(pieces)


async def test_the_first_chunk_is_there_before_the_others_and_others_are_answered_in_between() -> None:
    held = Gate()
    async with serving({"held": held, "echo": echo}) as (_, client, address):
        begun = client.begin_chunks(address, "held", b"", timeout_s=5)
        await held.entered.wait()
        wanted = asyncio.Event()
        held.calls[0].chunk(LARGE, wanted.set)
        stream = stream_of(await begun)
        assert bytes(await client.call(address, "echo", b"x", timeout_s=5)) == b"x"
        await wanted.wait()
        held.calls[0].answer(b"2")
        assert await whole(stream) == LARGE + b"2"


@pytest.mark.parametrize("size", [0, 1, FIRST_WINDOW_BYTES])
async def test_an_answer_that_is_not_long_comes_as_a_whole(size: int) -> None:
    async with serving({"echo": echo}) as (_, client, address):
        answer = await client.begin_chunks(address, "echo", bytes(size), timeout_s=5)
        assert isinstance(answer, memoryview)
        assert len(answer) == size


@pytest.mark.parametrize("size", [FIRST_WINDOW_BYTES + 1, 5_000_000])
async def test_an_answer_that_is_long_comes_in_chunks_though_it_was_given_as_a_whole(size: int) -> None:
    async with serving({"echo": echo}) as (_, client, address):
        payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
        answer = await client.begin_chunks(address, "echo", payload, timeout_s=5)
        assert await whole(stream_of(answer)) == payload
        assert client.answers.held == 0


async def test_a_failure_before_the_first_chunk_is_the_calls() -> None:
    held = Gate()
    async with serving({"held": held}) as (_, client, address):
        begun = client.begin_chunks(address, "held", b"", timeout_s=5)
        await held.entered.wait()
        held.calls[0].fail(errors.Gone("no more"))
        with pytest.raises(errors.Gone, match="no more"):
            await begun


@pytest.mark.parametrize("end", ["failed", "lost"])
async def test_a_failure_between_chunks_comes_behind_those_that_came(end: str) -> None:
    held = Gate()
    async with serving({"held": held}) as (server, client, address):
        begun = client.begin_chunks(address, "held", b"", timeout_s=5)
        await held.entered.wait()
        held.calls[0].chunk(b"1", lambda: None)
        stream = stream_of(await begun)
        if end == "failed":
            held.calls[0].fail(errors.Corrupt("broken"))
        else:
            await server.close()
        assert bytes(await anext(stream)) == b"1"
        for _ in range(2):
            with pytest.raises(errors.Corrupt if end == "failed" else errors.Unavailable):
                await anext(stream)
        assert client.answers.held == 0


async def test_closing_an_answer_ends_the_work_on_it() -> None:
    held = Gate()
    async with serving({"held": held}) as (_, client, address):
        begun = client.begin_chunks(address, "held", b"", timeout_s=60)
        await held.entered.wait()
        held.calls[0].chunk(b"1", lambda: None)
        stream_of(await begun).close()
        await until(held.abandoned)
        held.calls[0].chunk(b"2", lambda: None)
        assert client.calls_open(address) == 0
        assert client.answers.held == 0


async def test_an_answer_whose_chunks_come_is_no_call_that_waits() -> None:
    """Of replicas the one with fewer calls is asked; a client that reads slowly does not make its worker a busy one."""
    held = Gate()
    async with serving({"held": held}) as (_, client, address):
        begun = client.begin_chunks(address, "held", b"", timeout_s=60)
        await held.entered.wait()
        assert client.calls_open(address) == 1
        held.calls[0].chunk(b"1", lambda: None)
        stream_of(await begun)
        assert client.calls_open(address) == 0


async def test_an_answer_that_was_read_or_closed_is_held_by_nobody() -> None:
    """Not even until garbage is collected: answers are large, and that is seldom."""
    held = Gate()
    async with serving({"held": held, "pieces": InPieces([LARGE, b"x"])}) as (_, client, address):
        gc.disable()
        try:
            gone = []
            read = stream_of(await client.begin_chunks(address, "pieces", b"", timeout_s=5))
            assert await whole(read) == LARGE + b"x"
            gone.append(weakref.ref(read))
            for end in ("closed", "failed"):
                begun = client.begin_chunks(address, "held", b"", timeout_s=60)
                await until(lambda: len(held.calls) == len(gone))
                held.calls[-1].chunk(LARGE, lambda: None)
                stream = stream_of(await begun)
                gone.append(weakref.ref(stream))
                if end == "closed":
                    stream.close()
                    await until(held.abandoned)
                else:
                    held.calls[-1].fail(errors.Gone("x"))
                    with pytest.raises(errors.Gone):
                        await whole(stream)
                del begun, stream
            del read
            assert [ref() for ref in gone] == [None] * 3
        finally:
            gc.enable()


async def test_a_server_holds_nothing_of_an_answer_that_has_ended() -> None:
    """Neither a piece that was not sent, nor what makes the next one: a version of the data hangs on that."""

    class Data:
        def make_next(self) -> None: ...

    held = Gate()
    async with serving({"held": held}) as (_, client, address):
        gc.disable()
        try:
            for end in ("closed", "failed", "answered"):
                begun = client.begin_chunks(address, "held", b"", timeout_s=60)
                await held.entered.wait()
                held.entered.clear()
                call, data = held.calls.pop(), Data()
                call.chunk(bytes(10_000_000), data.make_next)
                stream = stream_of(await begun)
                if end == "closed":
                    stream.close()
                elif end == "failed":
                    call.fail(errors.Gone("x"))
                else:
                    reading = asyncio.create_task(whole(stream))
                    await asyncio.sleep(0.1)
                    call.answer(b"")
                    await reading
                await until(lambda call=call: call.done)  # type: ignore[misc]
                gone = weakref.ref(data)
                del data
                assert gone() is None, end
        finally:
            gc.enable()


async def test_giving_up_before_the_first_chunk_ends_the_work_on_the_answer() -> None:
    held = Gate()
    async with serving({"held": held}) as (_, client, address):
        begun = client.begin_chunks(address, "held", b"", timeout_s=60)
        await held.entered.wait()
        begun.cancel()
        await until(held.abandoned)


async def test_chunks_that_are_together_longer_than_an_answer_may_be_end_it_and_no_other_call() -> None:
    pieces = InPieces([b"p" * 100_000] * 12)
    async with serving({"pieces": pieces, "echo": echo}, frame_bytes_max=1 << 20) as (_, client, address):
        begun = client.begin_chunks(address, "pieces", b"", timeout_s=5)
        beside = client.begin(address, "echo", b"x", timeout_s=5)
        with pytest.raises(errors.InvalidArgument, match="ask for less"):
            await whole(await begun)
        assert bytes(await beside) == b"x"


async def test_of_two_answers_the_one_that_is_not_wanted_is_discarded() -> None:
    held = Gate()
    async with serving({"held": held}) as (_, client, address):
        begun = [client.begin_chunks(address, "held", b"", timeout_s=60) for _ in range(2)]
        await until(lambda: len(held.calls) == 2)
        for call in held.calls:
            call.chunk(b"1", lambda: None)
        await asyncio.wait(begun)
        for answer in begun:
            discard(answer)
        await until(held.abandoned)
        assert client.answers.held == 0


async def test_chunks_that_were_not_asked_for_cost_the_connection() -> None:
    held = Gate()
    async with serving({"held": held}) as (_, client, address):
        answer = client.begin(address, "held", b"", timeout_s=5)
        await held.entered.wait()
        held.calls[0].chunk(b"1", lambda: None)
        with pytest.raises(errors.Unavailable):
            await answer


async def test_a_server_that_sends_no_more_although_it_may_is_given_up() -> None:
    held = Gate()
    async with serving({"held": held}) as (_, client, address):
        begun = client.begin_chunks(address, "held", b"", timeout_s=0.2)
        await held.entered.wait()
        held.calls[0].chunk(LARGE, lambda: None)
        stream: Answer = await begun
        with pytest.raises(errors.DeadlineExceeded):
            await asyncio.wait_for(whole(stream), 5)
        await until(held.abandoned)
