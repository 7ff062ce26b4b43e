"""The bytes between processes.

Each side of a TCP connection sends frames, back to back. Integers are big-endian.

```
 0   2  magic "PC"
 2   1  version, 1
 3   1  kind: 1 request, 2 answer, 3 error, 4 cancel, 5 leaving
 4   4  u32  bytes of the header
 8   4  u32  bytes of the payload
12   8  u64  call: chosen by the caller, unique among its calls in flight on this connection; 0 in «leaving»
20   .  header, msgpack: request [method, request id, milliseconds left], error [code, message], otherwise empty
 .   .  payload: the method's own, opaque here
```

A caller may have many calls in flight; answers come in any order. `cancel` says that nobody waits for the call any
more; what still comes for it is ignored. `leaving` says that the server takes no new calls on this connection and
will close it after the last answer. Anything else on the wire is a mistake that cannot be resynchronised: the
connection is closed.
"""

from __future__ import annotations

import enum
import socket
import struct
from typing import Final, NamedTuple

import msgspec

from shared import limits

MAGIC: Final = b"PC"
VERSION: Final = 1
_HEAD: Final = struct.Struct(">2sBBIIQ")
HEAD_BYTES: Final = _HEAD.size


class FrameKind(enum.IntEnum):
    """What a frame is; the values are on the wire."""

    REQUEST = 1
    ANSWER = 2
    ERROR = 3
    CANCEL = 4
    LEAVING = 5


class RequestHeader(msgspec.Struct, frozen=True, array_like=True):
    """`timeout_ms` is the time the caller has left; `request_id` goes into the logs."""

    method: str
    request_id: str
    timeout_ms: int


class ErrorHeader(msgspec.Struct, frozen=True, array_like=True):
    """`code` is that of a class in `shared.errors`."""

    code: str
    message: str


class Frame(NamedTuple):
    """One frame, as views of the buffer it arrived in."""

    kind: FrameKind
    call: int
    header: memoryview
    payload: memoryview


class BadFrame(Exception):
    """The peer does not speak this protocol (or not this version of it)."""


def head(kind: FrameKind, call: int, header: bytes, payload_bytes: int) -> bytes:
    """Everything of a frame that comes before the payload."""
    return _HEAD.pack(MAGIC, VERSION, kind, len(header), payload_bytes, call) + header


class FrameReader:
    """Cuts a stream of bytes into frames.

    A frame that arrives whole is handed out as views of what arrived; one that arrives in pieces is gathered in a
    buffer that grows with the bytes received, never with the length that the peer claims.
    """

    def __init__(self, frame_bytes_max: int = limits.RPC_FRAME_BYTES_MAX) -> None:
        self._frame_bytes_max = frame_bytes_max
        self._partial = bytearray()
        self._needed = HEAD_BYTES  # how long `_partial` must be before looking at it again is worth while

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
            frames.append(_frame(view[at : at + self._needed]))
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
        magic, version, kind, header_bytes, payload_bytes, _ = _HEAD.unpack_from(view, at)
        if magic != MAGIC or version != VERSION or kind not in _KINDS:
            raise BadFrame(f"not a frame: {bytes(view[at : at + 4])!r}")
        length: int = HEAD_BYTES + header_bytes + payload_bytes
        if header_bytes > limits.RPC_HEADER_BYTES_MAX or length > self._frame_bytes_max:
            raise BadFrame(f"a frame of {length} bytes is over the limit")
        return length


_KINDS: Final = frozenset(FrameKind)


def _frame(view: memoryview) -> Frame:
    _, _, kind, header_bytes, _, call = _HEAD.unpack_from(view, 0)
    split = HEAD_BYTES + header_bytes
    return Frame(FrameKind(kind), call, view[HEAD_BYTES:split], view[split:])


def tune(sock: socket.socket) -> None:
    """Let the kernel notice a peer that vanished without a word, whether or not something is being sent."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 5), ("TCP_KEEPINTVL", 2), ("TCP_KEEPCNT", 3), ("TCP_USER_TIMEOUT", 10_000)):
        if hasattr(socket, option):  # Linux has them all
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def split_address(address: str) -> tuple[str, int]:
    """`host:port`, an IPv6 host in brackets. Raises ValueError."""
    host, _, port = address.rpartition(":")
    return host.removeprefix("[").removesuffix("]"), int(port)


def join_address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
