import random

import pytest

from shared.rpc.frames import (
    HEAD_BYTES,
    AnswerHeader,
    BadFrame,
    FrameKind,
    FrameReader,
    answers_of,
    framed,
    join_address,
    split_address,
)


def _stream(count: int, random_: random.Random) -> tuple[bytes, list[list[tuple[AnswerHeader, bytes]]]]:
    expected = [
        [
            (AnswerHeader(random_.randrange(2**63), len(payload), random_.choice(["", "gone"]), "x"), payload)
            for _ in range(random_.randrange(4))
            for payload in [random_.randbytes(random_.choice([0, 1, 100, 70_000]))]
        ]
        for _ in range(count)
    ]
    frames = [framed(FrameKind.ANSWERS, [h for h, _ in answers], [p for _, p in answers]) for answers in expected]
    return b"".join(buffer for buffers in frames for buffer in buffers), expected


@pytest.mark.parametrize("seed", range(10))
def test_frames_come_out_whole_however_the_stream_is_cut(seed: int) -> None:
    random_ = random.Random(seed)
    wire, expected = _stream(20, random_)
    reader, found, at = FrameReader(), [], 0
    while at < len(wire):
        step = random_.choice([1, 7, HEAD_BYTES, 1000, 65536, len(wire)])
        found += reader.feed(wire[at : at + step])
        at += step
    assert [[(header, bytes(payload)) for header, payload in answers_of(frame)] for frame in found] == expected


def test_a_view_handed_out_outlives_what_arrives_later() -> None:
    reader = FrameReader()
    wire = b"".join(framed(FrameKind.ANSWERS, [AnswerHeader(1, 3)], [b"abc"]))
    assert reader.feed(wire[:10]) == []
    (frame,) = reader.feed(wire[10:] + wire[:5])
    assert [f.kind for f in reader.feed(wire[5:])] == [FrameKind.ANSWERS]
    assert bytes(frame.payload) == b"abc"


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        bytes(40),
        b"PC\x01" + bytes(40),
        b"PC\x02\x09" + bytes(40),
        b"PC\x02\x01" + bytes(4) + b"\xff" * 4,
        b"PC\x02\x01" + (70_000).to_bytes(4, "big") + bytes(4),
    ],
)
def test_garbage_is_refused_without_waiting_for_what_it_claims(garbage: bytes) -> None:
    with pytest.raises(BadFrame):
        FrameReader().feed(garbage)


@pytest.mark.parametrize("address", ["127.0.0.1:80", "[::1]:80", "worker-3.local:7000"])
def test_addresses_survive_splitting(address: str) -> None:
    assert join_address(*split_address(address)) == address


@pytest.mark.parametrize("sizes", [[4], [2], [], [5, -2]])
def test_payloads_of_other_lengths_than_announced_are_refused(sizes: list[int]) -> None:
    (frame,) = FrameReader().feed(b"".join(framed(FrameKind.ANSWERS, [AnswerHeader(1, n) for n in sizes], [b"abc"])))
    with pytest.raises(BadFrame):
        list(answers_of(frame))
