"""A connection of a client to a server, and the calls that were sent on it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import msgspec

from shared.errors import ConnectionLost, Unavailable
from shared.process import telemetry
from shared.rpc import frames
from shared.rpc.authenticity import NONCE_BYTES, ClientHandshake, NotAuthentic
from shared.rpc.client_call import ClientCall
from shared.rpc.frame_seal import FrameSeal
from shared.rpc.frames import BadFrame, CallHeader, Frame, FrameKind, FrameReader

log = telemetry.get_logger(__name__)


class ClientConnection(asyncio.Protocol):
    """`calls` are those that wait for an answer or the rest of one, by number. When the connection is lost they fail
    with ConnectionLost. `proven` is done when the server has proved itself; it fails with ConnectionError when it does
    not.
    """

    def __init__(
        self,
        address: str,
        frame_bytes_max: int,
        on_lost: Callable[[ClientConnection], None],
        secrets: Sequence[bytes] = (),
    ) -> None:
        """`secrets`: those of the cluster, the one to use first. Without any, nothing has to be proved."""
        self.calls: dict[int, ClientCall] = {}
        self.proven: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._handshake = ClientHandshake(secrets, os.urandom(NONCE_BYTES)) if secrets else None
        self._seal: FrameSeal | None = None
        self._address = address
        self._on_lost = on_lost
        self._reader = FrameReader(frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._last_number = 0
        self._is_leaving = False

    @property
    def is_usable(self) -> bool:
        """Whether calls may be sent on it: it is open, and the server is not leaving."""
        if self._transport is None or self._transport.is_closing():
            return False
        return self._handshake is None and not self._is_leaving

    def send(self, calls: Sequence[ClientCall]) -> None:
        """Sends calls in one frame."""
        if self._transport is None or not self.is_usable:  # lost as soon as it was made
            for call in calls:
                call.fail(Unavailable(f"the connection to {self._address} was lost"))
            return
        headers = []
        for call in calls:
            self._last_number += 1
            call.number, call.connection = self._last_number, self
            self.calls[call.number] = call
            left_ms = max(1, int((call.deadline_s - call.owner.loop.time()) * 1000))
            headers.append(_header(call, left_ms))
        self._send_frame(self._transport, FrameKind.CALLS, headers, [call.payload for call in calls])

    def end(self, call: ClientCall) -> None:
        """The call has ended; when that was without an answer, the server may stop working on it."""
        if self.calls.pop(call.number, None) is not None:
            self._write(FrameKind.CANCEL, [call.number])

    def grant(self, call: ClientCall, size: int) -> None:
        """The server may send so many bytes more of the answer."""
        if call.number in self.calls:
            self._write(FrameKind.CREDIT, [(call.number, size)])

    def abort(self) -> None:
        """Drops the connection."""
        if self._transport is not None:
            self._transport.abort()

    def _write(self, kind: FrameKind, headers: Sequence[int | tuple[int, int]]) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._send_frame(self._transport, kind, headers, ())

    def _send_frame(
        self,
        transport: asyncio.Transport,
        kind: FrameKind,
        headers: Sequence[CallHeader | int | tuple[int, int]],
        payloads: Sequence[bytes],
    ) -> None:
        buffers = frames.framed(kind, headers, payloads)
        if self._seal is not None:
            buffers.append(self._seal.tag(buffers))
        transport.writelines(buffers)

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        frames.tune(transport.get_extra_info("socket"))
        if self._handshake is None:
            self.proven.set_result(None)
        else:
            self._transport.write(self._handshake.hello)

    def data_received(self, data: bytes) -> None:
        try:
            if self._handshake is not None:
                data = self._prove(self._handshake, data)
            for frame in self._reader.feed(data):
                self._accept(frame)
        except NotAuthentic as error:
            log.warning("peer_not_authentic", address=self._address, error=str(error))
            self.abort()
        except (BadFrame, msgspec.MsgspecError):
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if not self.proven.done():
            self.proven.set_exception(ConnectionError("the peer has not proved that it belongs to this cluster"))
            self.proven.exception()  # seen: whoever waited for it may have given up
        calls, self.calls = self.calls, {}
        self._fail(calls.values())
        self._on_lost(self)

    def _prove(self, handshake: ClientHandshake, data: bytes) -> bytes:
        """Goes on with the opening of the connection; returns what has come behind it. Raises NotAuthentic."""
        proof = handshake.feed(data)
        if self._transport is None or handshake.channel is None:
            return b""
        self._transport.write(proof)
        self._handshake, self._seal = None, handshake.channel.outgoing
        self._reader.expect_tags(handshake.channel.incoming)
        if not self.proven.done():  # else nobody waits for it any more
            self.proven.set_result(None)
        return handshake.rest

    def _fail(self, calls: Iterable[ClientCall]) -> None:
        for call in calls:
            call.fail(ConnectionLost(f"the connection to {self._address} was lost"))

    def _accept(self, frame: Frame) -> None:
        if frame.kind is FrameKind.LEAVING:
            self._is_leaving = True
            return
        if frame.kind is not FrameKind.ANSWERS:
            raise BadFrame(f"unexpected {frame.kind.name}")
        for header, payload in frames.answers_of(frame):
            if header.more:
                call = self.calls.get(header.number)
                if call is not None:
                    call.add_chunk(header, payload)
            else:
                call = self.calls.pop(header.number, None)
                if call is not None:  # else nobody waits any more
                    call.end(header, payload)


def _header(call: ClientCall, left_ms: int) -> CallHeader:
    return CallHeader(
        call.number, call.method, call.request_id, left_ms, len(call.payload), call.window, call.tenant, call.cost
    )
