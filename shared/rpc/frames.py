"""The bytes between processes.

Each side of a TCP connection sends frames, back to back. Integers are big-endian.

```text
 0   2  magic "PC"
 2   1  version, 2
 3   1  kind: 1 calls, 2 answers, 3 cancel, 4 leaving, 5 credit
 4   4  u32  bytes of the header
 8   4  u32  bytes of the payloads
12   .  header, msgpack: an array with one element for each
         calls    [call, method, request id, milliseconds left, bytes of its payload, window, tenant, cost]
         answers  [call, bytes of its payload, code of the error, its message, more, paced, rows, bytes scanned]
         cancel   call
         leaving  (none)
         credit   [call, bytes]
 .   .  payloads, end to end in the order of the header: the methods' own, opaque here
```

A call's number is chosen by the caller, unique among its calls in flight on the connection. Calls travel together only
to save work: each is answered for itself, answers come in any order and in any company. The code of an error is empty
when the call went well. `cancel` says that nobody waits for the calls any more; what still comes for them is ignored.
`leaving` says that the server takes no new calls on this connection and ends its side after the last answer. Anything
else on the wire is a mistake that cannot be resynchronised: the connection is closed.

In a cluster with a secret a connection opens with a proof of both sides (`shared.rpc.authenticity`), and a tag of 16
bytes stands behind each frame (`shared.rpc.frame_seal`), which counts to none of the lengths above.

Chunks. A call whose `window` is not 0 takes its answer in chunks, which come in order; each but the last says that
`more` follow. The window is the number of bytes that the server may send of the answer at first. With every `credit`
the caller adds to it, as it consumes what has come. When all credit is used up the server waits, and sends the answers
to other calls meanwhile; so a slow reader costs itself alone. The first chunk that is not the last carries `paced`:
the server keeps to this.

```text
caller   call 7, window 4 ─►                         credit 7, 3 ─►
server                     ◄─ 4 bytes, more, paced                  ◄─ 3 bytes, more, paced   ...
```

Peers of the version before know neither window nor credit; both sides understand each other all the same:

  * Elements that are missing at the end of a header's array have their defaults (0, false); further ones are ignored.
  * A caller without a window gets its answer as a whole, or, if the method's request asks for that, in chunks that wait
    for no credit.
  * A call without tenant and cost is one of nobody's, and as cheap as calls usually are.
  * Credit is sent for a call only after a chunk of its answer was `paced`; so a server that does not know this kind of
    frame never gets one.
"""

from __future__ import annotations

import enum
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from shared import limits
from shared.rpc.frame_seal import TAG_BYTES, FrameSeal

MAGIC: Final = b"PC"
VERSION: Final = 2
_HEAD: Final = struct.Struct(">2sBBII")
HEAD_BYTES: Final = _HEAD.size

OWN_FRAME_BYTES: Final = 64 * 1024
"""A payload of more bytes is sent in a frame of its own: no other call should wait until all of it has arrived."""

ANSWER_BYTES_MAX: Final = HEAD_BYTES + 32
"""Bytes of a frame with one good answer beside its payload."""

FRAME_CALLS_MAX: Final = 64
"""Calls in one frame, at most."""


class FrameKind(enum.IntEnum):
    """The kind of a frame; the values are on the wire."""

    CALLS = 1
    ANSWERS = 2
    CANCEL = 3
    LEAVING = 4
    CREDIT = 5


class CallHeader(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`timeout_ms` is the time that the caller has left; `request_id` goes into the logs. `window`: bytes of the answer
    that may be sent before credit is granted; 0 for a caller that does not grant any. `tenant`: for whom the call is
    made, empty when that is nobody. `cost`: the work that the caller estimates, 0 when it says nothing.
    """

    number: int
    method: str
    request_id: str
    timeout_ms: int
    payload_bytes: int
    window: int = 0
    tenant: str = ""
    cost: float = 0.0


class AnswerHeader(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`code` is that of a class in `shared.errors`, or empty. `more`: this is a chunk, and others follow. `paced`: the
    server sends no more of this answer than the caller has granted. `rows_scanned` and `bytes_scanned`, with the end of
    an answer: what the server looked at for it.
    """

    number: int
    payload_bytes: int
    code: str = ""
    message: str = ""
    more: bool = False
    paced: bool = False
    rows_scanned: int = 0
    bytes_scanned: int = 0


Header = TypeVar("Header", CallHeader, AnswerHeader)


class Frame(NamedTuple):
    """A frame, as views of the buffer it arrived in."""

    kind: FrameKind
    header: memoryview
    payload: memoryview


class BadFrame(Exception):
    """The peer does not speak this protocol (or not this version of it)."""


_encode: Final = msgspec.msgpack.Encoder().encode
_CALLS: Final = msgspec.msgpack.Decoder(list[CallHeader])
_ANSWERS: Final = msgspec.msgpack.Decoder(list[AnswerHeader])
_CANCELLED: Final = msgspec.msgpack.Decoder(list[int])
_CREDIT: Final = msgspec.msgpack.Decoder(list[tuple[int, int]])


def framed(
    kind: FrameKind,
    headers: Sequence[CallHeader | AnswerHeader | int | tuple[int, int]],
    payloads: Sequence[bytes | memoryview],
) -> list[bytes | memoryview]:
    """A frame, as buffers to be sent one after the other. `headers` are of the kind's own form."""
    header = _encode(headers)
    size = sum(map(len, payloads))
    return [_HEAD.pack(MAGIC, VERSION, kind, len(header), size) + header, *payloads]


def calls_of(frame: Frame) -> Iterator[tuple[CallHeader, memoryview]]:
    """The calls of a frame with their payloads. Raises BadFrame, MsgspecError."""
    return _split(_CALLS.decode(frame.header), frame.payload)


def answers_of(frame: Frame) -> Iterator[tuple[AnswerHeader, memoryview]]:
    """The answers of a frame with their payloads. Raises BadFrame, MsgspecError."""
    return _split(_ANSWERS.decode(frame.header), frame.payload)


def cancelled_of(frame: Frame) -> list[int]:
    """The numbers of the calls that a frame cancels. Raises MsgspecError."""
    return _CANCELLED.decode(frame.header)


def credit_of(frame: Frame) -> list[tuple[int, int]]:
    """Calls, and the bytes that are granted to each. Raises BadFrame, MsgspecError."""
    granted = _CREDIT.decode(frame.header)
    if any(size <= 0 for _, size in granted):
        raise BadFrame("credit of no bytes")
    return granted


def _split(headers: list[Header], payload: memoryview) -> Iterator[tuple[Header, memoryview]]:
    if sum(header.payload_bytes for header in headers) != len(payload):
        raise BadFrame("payloads of other lengths than announced")
    at = 0
    for header in headers:
        end = at + header.payload_bytes
        if end < at:
            raise BadFrame("a payload of negative length")
        yield header, payload[at:end]
        at = end


class FrameReader:
    """Cuts a stream of bytes into frames.

    A frame that arrives whole is handed out as views of what arrived; one that arrives in pieces is gathered in a
    buffer that grows with the bytes received, never with the length that the peer claims.
    """

    def __init__(self, frame_bytes_max: int = limits.RPC_FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._partial = bytearray()
        self._needed = HEAD_BYTES  # how long `_partial` must be before looking at it again is worth while
        self._seal: FrameSeal | None = None
        self._tag_bytes = 0

    def expect_tags(self, seal: FrameSeal) -> None:
        """From now on each frame must have its tag behind it."""
        self._seal = seal
        self._tag_bytes = TAG_BYTES

    def feed(self, data: bytes) -> list[Frame]:
        """The frames completed by `data`. Raises BadFrame; the reader is of no use after that."""
        block: bytes | bytearray = data
        if self._partial:
            self._partial += data
            if len(self._partial) < self._needed:
                return []
            # Handed-out views pin their buffer, so the next partial frame gets another one.
            block, self._partial = self._partial, bytearray()
        frames: list[Frame] = []
        view = memoryview(block)
        at = 0
        while True:
            self._needed = self._length(view, at)
            if len(view) - at < self._needed:
                break
            frames.append(_frame(self._checked(view[at : at + self._needed])))
            at += self._needed
        if at < len(view):
            self._partial = bytearray(view[at:])
        return frames

    def _length(self, view: memoryview, at: int) -> int:
        """Length of the frame that begins at `at`, or of its head while that is not there."""
        if len(view) - at < HEAD_BYTES:
            if not MAGIC.startswith(bytes(view[at : at + len(MAGIC)])):  # no need to wait for a whole head of garbage
                raise BadFrame("not a frame")
            return HEAD_BYTES
        magic, version, kind, header_bytes, payload_bytes = _HEAD.unpack_from(view, at)
        if magic != MAGIC or version != VERSION or kind not in _KINDS:
            raise BadFrame(f"not a frame: {bytes(view[at : at + 4])!r}")
        length: int = HEAD_BYTES + header_bytes + payload_bytes
        if header_bytes > limits.RPC_HEADER_BYTES_MAX or length > self._frame_bytes_max:
            raise BadFrame(f"a frame of {length} bytes is over the limit")
        return length + self._tag_bytes

    def _checked(self, view: memoryview) -> memoryview:
        """The frame without its tag. Raises BadFrame unless that is the tag of the next frame."""
        if self._seal is None:
            return view
        split = len(view) - TAG_BYTES
        if not self._seal.is_next(view[:split], view[split:]):
            raise BadFrame("a frame without the tag of its connection and number")
        return view[:split]


_KINDS: Final = frozenset(FrameKind)


def _frame(view: memoryview) -> Frame:
    _, _, kind, header_bytes, _ = _HEAD.unpack_from(view, 0)
    split = HEAD_BYTES + header_bytes
    return Frame(FrameKind(kind), view[HEAD_BYTES:split], view[split:])


def tune(sock: socket.socket) -> None:
    """Has the kernel notice a peer that vanished without a word, whether or not something is being sent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 10_000)):
        if hasattr(socket, option):  # Linux has them all
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, an IPv6 host in brackets. Raises ValueError."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    """`host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
