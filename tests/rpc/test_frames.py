import random

import pytest

from shared.rpc.frames import (
    HEAD_BYTES,
    BadFrame,
    FrameKind,
    FrameReader,
    head,
    join_address,
    split_address,
)


def _stream(count: int, random_: random.Random) -> tuple[bytes, list[tuple[FrameKind, int, bytes, bytes]]]:
    expected = [
        (
            random_.choice(list(FrameKind)),
            random_.randrange(2**64),
            random_.randbytes(random_.choice([0, 1, 30])),
            random_.randbytes(random_.choice([0, 1, 100, 70_000])),
        )
        for _ in range(count)
    ]
    wire = b"".join(head(kind, call, header, len(payload)) + payload for kind, call, header, payload in expected)
    return wire, expected


@pytest.mark.parametrize("seed", range(10))
def test_frames_come_out_whole_however_the_stream_is_cut(seed: int) -> None:
    random_ = random.Random(seed)
    wire, expected = _stream(20, random_)
    reader, found, at = FrameReader(), [], 0
    while at < len(wire):
        step = random_.choice([1, 7, HEAD_BYTES, 1000, 65536, len(wire)])
        found += reader.feed(wire[at : at + step])
        at += step
    assert [(f.kind, f.call, bytes(f.header), bytes(f.payload)) for f in found] == expected


def test_a_view_handed_out_outlives_what_arrives_later() -> None:
    reader = FrameReader()
    wire = head(FrameKind.ANSWER, 1, b"", 3) + b"abc"
    assert reader.feed(wire[:10]) == []
    (frame,) = reader.feed(wire[10:] + wire[:5])
    assert [f.call for f in reader.feed(wire[5:])] == [1]
    assert bytes(frame.payload) == b"abc"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(40),
        b"PC\x02" + bytes(40),
        b"PC\x01\x09" + bytes(40),
        head(FrameKind.REQUEST, 1, b"", 2**32 - 1),
        head(FrameKind.REQUEST, 1, bytes(70_000), 0),
    ],
)
def test_garbage_is_refused_without_waiting_for_what_it_claims(garbage: bytes) -> None:
    with pytest.raises(BadFrame):
        FrameReader().feed(garbage)


@pytest.mark.parametrize("address", ["127.0.0.1:80", "[::1]:80", "worker-3.local:7000"])
def test_addresses_survive_splitting(address: str) -> None:
    assert join_address(*split_address(address)) == address
