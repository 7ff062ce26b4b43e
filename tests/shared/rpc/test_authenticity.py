"""Whoever cannot prove that it belongs to the cluster gets no answer, and no memory."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared import errors
from shared.process.cluster_secret import ClusterSecret, new_secret, parse_secrets
from shared.rpc import server, server_connection
from shared.rpc.authenticity import (
    HELLO_BYTES,
    MARK,
    NONCE_BYTES,
    PROOF_BYTES,
    REPLY_BYTES,
    Channel,
    ClientHandshake,
    NotAuthentic,
    ServerHandshake,
)
from shared.rpc.client import RpcClient
from shared.rpc.frame_seal import SMALL_BYTES, TAG_BYTES
from shared.rpc.frames import AnswerHeader, BadFrame, FrameKind, FrameReader, framed, split_address
from tests.shared.rpc.serving import Gate, echo, one_call, serving, until, whole

ONE, OTHER = b"1" * 32, b"2" * 32


@pytest.fixture
def secret(tmp_path: Path) -> ClusterSecret:
    return secret_of(tmp_path / "secret", new_secret())


def secret_of(path: Path, *lines: str) -> ClusterSecret:
    draft = path.with_suffix(".new")
    draft.write_text("\n".join(lines))
    draft.replace(path)
    return ClusterSecret(path)


def opened(client_secrets: list[bytes], server_secrets: list[bytes]) -> tuple[Channel, Channel]:
    client = ClientHandshake(client_secrets, os.urandom(NONCE_BYTES))
    called = ServerHandshake(server_secrets, os.urandom(NONCE_BYTES))
    called.feed(client.feed(called.feed(client.hello)))
    assert client.channel is not None
    assert called.channel is not None
    return client.channel, called.channel


# ---- the handshake, byte by byte


def test_both_sides_derive_a_key_for_each_direction() -> None:
    client, called = opened([ONE], [ONE])
    tags = [channel.tag([b"frame"]) for channel in (*client[:2], *called[:2])]
    assert tags[0] == tags[3]
    assert tags[1] == tags[2]
    assert tags[0] != tags[1]
    assert opened([ONE], [ONE])[0].outgoing.tag([b"frame"]) not in tags


@pytest.mark.parametrize(
    ("client", "called", "chosen"),
    [([ONE], [OTHER, ONE], ONE), ([OTHER, ONE], [ONE], ONE), ([OTHER, ONE], [OTHER, ONE], OTHER)],
)
def test_while_the_secret_is_rotated_both_are_accepted(client: list[bytes], called: list[bytes], chosen: bytes) -> None:
    assert {channel.secret for channel in opened(client, called)} == {chosen}


def test_a_handshake_may_arrive_in_pieces_and_with_frames_behind_it() -> None:
    client, called = ClientHandshake([ONE], bytes(NONCE_BYTES)), ServerHandshake([ONE], bytes(NONCE_BYTES))
    reply = b"".join(called.feed(client.hello[at : at + 1]) for at in range(HELLO_BYTES))
    assert len(reply) == REPLY_BYTES
    proof = b"".join(client.feed(piece) for piece in (reply[:50], reply[50:] + b"frames"))
    assert client.rest == b"frames"
    called.feed(proof[:7])
    assert called.channel is None
    called.feed(proof[7:] + b"calls")
    assert called.rest == b"calls"
    assert called.channel is not None


def test_another_secret_opens_nothing() -> None:
    with pytest.raises(NotAuthentic, match="names no secret"):
        opened([ONE], [OTHER])


def test_a_server_that_only_knows_the_name_of_the_secret_is_refused() -> None:
    client = ClientHandshake([ONE], os.urandom(NONCE_BYTES))
    name = client.hello[len(MARK) + NONCE_BYTES :][:8]
    with pytest.raises(NotAuthentic, match="server"):
        client.feed(MARK + os.urandom(NONCE_BYTES) + name + os.urandom(PROOF_BYTES))


def test_a_server_that_sends_back_what_it_got_is_refused() -> None:
    """Reflection: to the client a proof of the server is another than its own."""
    client, helper = ClientHandshake([ONE], bytes(NONCE_BYTES)), ServerHandshake([ONE], bytes(NONCE_BYTES))
    reply = helper.feed(client.hello)
    proof = ClientHandshake([ONE], bytes(NONCE_BYTES)).feed(reply)
    assert proof != reply[-PROOF_BYTES:]
    with pytest.raises(NotAuthentic):
        client.feed(reply[:-PROOF_BYTES] + proof)
    with pytest.raises(NotAuthentic):
        helper.feed(reply[-PROOF_BYTES:])


def test_a_recorded_connection_cannot_be_played_again() -> None:
    client, called = ClientHandshake([ONE], os.urandom(NONCE_BYTES)), ServerHandshake([ONE], os.urandom(NONCE_BYTES))
    proof = client.feed(called.feed(client.hello))
    again = ServerHandshake([ONE], os.urandom(NONCE_BYTES))
    again.feed(client.hello)
    with pytest.raises(NotAuthentic, match="client"):
        again.feed(proof)


def test_a_proof_that_a_man_in_the_middle_has_altered_is_refused() -> None:
    for at in range(REPLY_BYTES):
        client, called = ClientHandshake([ONE], bytes(NONCE_BYTES)), ServerHandshake([ONE], bytes(NONCE_BYTES))
        reply = bytearray(called.feed(client.hello))
        reply[at] ^= 1
        with pytest.raises(NotAuthentic):
            client.feed(bytes(reply))


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\n", b"PC\x02\x01" + bytes(8), MARK + bytes(HELLO_BYTES), b"PCS\x02", bytes(10_000_000)]
)
def test_before_its_proof_a_peer_may_send_a_hello_and_nothing_else(sent: bytes) -> None:
    with pytest.raises(NotAuthentic):
        ServerHandshake([ONE], bytes(NONCE_BYTES)).feed(sent)


# ---- frames


def sealed(channel: Channel, number: int) -> bytes:
    frame = b"".join(framed(FrameKind.ANSWERS, [AnswerHeader(number, 3)], [b"abc"]))
    return frame + channel.outgoing.tag([frame])


def reader_of(channel: Channel) -> FrameReader:
    reader = FrameReader()
    reader.expect_tags(channel.incoming)
    return reader


def test_frames_with_their_tags_are_read_in_pieces_of_any_size() -> None:
    client, called = opened([ONE], [ONE])
    stream = b"".join(sealed(client, number) for number in range(5))
    for size in (1, 7, 40, len(stream)):
        client, called = opened([ONE], [ONE])
        stream = b"".join(sealed(client, number) for number in range(5))
        reader = reader_of(called)
        found = [frame for at in range(0, len(stream), size) for frame in reader.feed(stream[at : at + size])]
        assert [bytes(frame.payload) for frame in found] == [b"abc"] * 5


def disorders() -> Iterator[tuple[str, list[int]]]:
    yield "repeated", [0, 0]
    yield "exchanged", [1, 0]
    yield "left out", [1]


@pytest.mark.parametrize("order", [order for _, order in disorders()], ids=[name for name, _ in disorders()])
def test_frames_out_of_their_order_are_refused(order: list[int]) -> None:
    client, called = opened([ONE], [ONE])
    sent = [sealed(client, number) for number in range(2)]
    with pytest.raises(BadFrame, match="tag"):
        reader_of(called).feed(b"".join(sent[number] for number in order))


def test_a_frame_with_any_bit_altered_is_refused() -> None:
    client, _ = opened([ONE], [ONE])
    for at in range(len(sealed(client, 0))):
        client, called = opened([ONE], [ONE])
        frame = bytearray(sealed(client, 0))
        frame[at] ^= 1
        reader = reader_of(called)
        try:
            found = reader.feed(bytes(frame))
        except BadFrame:
            continue
        assert not found, "a length that was altered leaves the reader waiting"


@pytest.mark.parametrize("size", [0, SMALL_BYTES, SMALL_BYTES + 1, 300_000])
def test_a_tag_is_of_all_bytes_however_many_there_are(size: int) -> None:
    frame = os.urandom(size)
    for altered in (frame + b"x", frame[:-1], b"x" + frame[1:], frame[:-1] + b"x"):
        client, called = opened([ONE], [ONE])
        tag = client.outgoing.tag([frame[: size // 2], memoryview(frame)[size // 2 :]])
        assert called.incoming.is_next(memoryview(frame), memoryview(tag))
        client, called = opened([ONE], [ONE])
        tag = client.outgoing.tag([frame])
        assert altered == frame or not called.incoming.is_next(memoryview(altered), memoryview(tag))


def test_a_frame_of_this_side_is_none_of_the_other_side() -> None:
    client, _ = opened([ONE], [ONE])
    with pytest.raises(BadFrame, match="tag"):
        reader_of(client).feed(sealed(client, 0))


def test_a_frame_without_a_tag_waits_for_it() -> None:
    client, called = opened([ONE], [ONE])
    reader, frame = reader_of(called), sealed(client, 0)
    assert not reader.feed(frame[:-TAG_BYTES])
    assert len(reader.feed(frame[-TAG_BYTES:])) == 1


# ---- client and server


async def test_calls_go_both_ways_between_processes_with_the_secret(secret: ClusterSecret) -> None:
    async with serving({"echo": echo}, secret=secret) as (_, client, address):
        for size in (0, 10, 3_000_000):
            payload = os.urandom(size)
            assert bytes(await client.call(address, "echo", payload, timeout_s=20)) == payload
            assert await whole(await client.begin_chunks(address, "echo", payload, timeout_s=20)) == payload
        answers = [client.begin(address, "echo", b"%d" % number, timeout_s=20) for number in range(100)]
        assert [bytes(await answer) for answer in answers] == [b"%d" % number for number in range(100)]


async def test_a_raw_frame_gets_no_answer(secret: ClusterSecret) -> None:
    """Attack 9: whoever reached a worker's port could read the rows of any tenant."""
    gate = Gate()
    async with serving({"gate": gate}, secret=secret) as (_, _, address):
        reader, writer = await asyncio.open_connection(*split_address(address))
        writer.writelines(one_call("gate", 1))
        async with asyncio.timeout(10):
            assert await closed(reader) == b""
        assert not gate.calls
        writer.close()


async def test_a_client_without_the_secret_or_with_another_is_told_so(secret: ClusterSecret, tmp_path: Path) -> None:
    for own in (None, secret_of(tmp_path / "other", new_secret())):
        client = RpcClient(secret=own)
        async with serving({"echo": echo}, client, secret) as (_, _, address):
            with pytest.raises(errors.Unavailable):
                await client.call(address, "echo", b"", timeout_s=10)


async def test_a_client_calls_no_server_that_does_not_know_the_secret(secret: ClusterSecret) -> None:
    gate, client = Gate(), RpcClient(secret=secret)
    async with serving({"gate": gate}, client) as (_, _, address):
        with pytest.raises(errors.Unavailable, match="cannot reach"):
            await client.call(address, "gate", b"", timeout_s=10)
        assert not gate.calls


async def test_a_peer_that_is_slow_to_prove_itself_is_dropped(
    secret: ClusterSecret, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_connection, "PROOF_S", 0.1)
    async with serving({"echo": echo}, secret=secret) as (running, client, address):
        reader, writer = await asyncio.open_connection(*split_address(address))
        writer.write(MARK)
        async with asyncio.timeout(10):
            assert await closed(reader) == b""
        assert not running.unproven
        monkeypatch.setattr(server_connection, "PROOF_S", 60.0)
        await client.call(address, "echo", b"", timeout_s=10)
        assert not running.unproven
        writer.close()


async def test_peers_without_proof_never_fill_the_places_of_others(
    secret: ClusterSecret, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "UNPROVEN_MAX", 3)
    monkeypatch.setattr(server_connection, "PROOF_S", 60.0)
    async with serving({"echo": echo}, secret=secret) as (running, client, address):
        held = [await asyncio.open_connection(*split_address(address)) for _ in range(10)]
        await until(lambda: len(running.connections) <= 3)
        await client.call(address, "echo", b"", timeout_s=10)
        for _, writer in held:
            writer.close()


async def test_a_new_secret_is_taken_up_without_a_restart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step as an operator does it; each process reads its own file, at its own time."""
    monkeypatch.setattr(server, "ROTATION_CHECK_S", 0.02)
    old, new = new_secret(), new_secret()
    mine, theirs = tmp_path / "client", tmp_path / "server"
    client = RpcClient(secret=secret_of(mine, old), connections_per_address=1)
    async with serving({"echo": echo}, client, secret_of(theirs, old)) as (running, _, address):

        async def talks_by(secret: str) -> None:
            async with asyncio.timeout(20):
                while {each.secret for each in running.connections} != {secret.encode()}:
                    await asyncio.sleep(0.02)
                    await client.call(address, "echo", b"", timeout_s=10)

        await client.call(address, "echo", b"", timeout_s=10)
        secret_of(theirs, new, old)
        await talks_by(old)
        secret_of(mine, new, old)
        await talks_by(old)
        secret_of(theirs, new)
        await talks_by(new)
        secret_of(mine, new)
        await client.call(address, "echo", b"", timeout_s=10)
        theirs.unlink()
        await client.call(address, "echo", b"", timeout_s=10)


async def test_a_server_that_drains_tells_a_peer_that_has_just_proved_itself(secret: ClusterSecret) -> None:
    async with serving({"echo": echo}, secret=secret) as (running, client, address):
        running.draining = True
        with pytest.raises((errors.WrongWorker, errors.Unavailable)):
            await client.call(address, "echo", b"", timeout_s=10)


async def closed(reader: asyncio.StreamReader) -> bytes:
    """What comes until the other side closes, in whatever way."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


# ---- the file


@pytest.mark.parametrize("text", ["", "# nothing\n", "short", "x" * 31, "\n".join(["a" * 32, "b" * 32, "c" * 32])])
def test_a_file_that_has_no_secret_is_refused_without_being_shown(text: str) -> None:
    with pytest.raises(ValueError, match="secret") as refused:
        parse_secrets(text)
    assert "aaaa" not in str(refused.value)


def test_a_bearer_token_is_the_secret_and_nothing_like_it(tmp_path: Path) -> None:
    text, other = new_secret(), new_secret()
    secret = secret_of(tmp_path / "secret", text, other)
    assert secret.is_bearer(f"Bearer {text}")
    assert secret.is_bearer(f"bearer  {other} ")
    for wrong in (None, "", text, f"Basic {text}", "Bearer", f"Bearer {text[:-1]}", f"Bearer {text}x", "Bearer \udcff"):
        assert not secret.is_bearer(wrong)
