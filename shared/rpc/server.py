"""The answering side of calls between processes. The bytes are drawn in `shared.rpc.frames`.

Every request runs as a task of its own under the time that its caller has left; errors of the project's family travel
as code and message, anything else as «internal» with its traceback in the log. A lost connection or a `cancel` frame
cancels the task.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, cast

import msgspec
from prometheus_client import Counter, Histogram

from shared import errors, limits, telemetry
from shared.rpc import frames
from shared.rpc.frames import BadFrame, ErrorHeader, Frame, FrameKind, FrameReader, RequestHeader

Handler = Callable[[memoryview], Awaitable[bytes]]

log = telemetry.get_logger(__name__)
CALL_SECONDS = Histogram(
    "polychrome_rpc_call_seconds", "Time to answer a call.", ["method"],
    buckets=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10),
)  # fmt: skip
CALLS = Counter(
    "polychrome_rpc_calls_total", "Calls answered, by error code («ok» when there was none).", ["method", "code"]
)
BAD_CONNECTIONS = Counter("polychrome_rpc_bad_connections_total", "Connections closed for not speaking the protocol.")

_NO_HEADER: Final = b""


@functools.cache
def _counter(method: str, code: str) -> Counter:
    """Looking a metric up by its labels costs more than counting."""
    return CALLS.labels(method, code)


@functools.cache
def _histogram(method: str) -> Histogram:
    return CALL_SECONDS.labels(method)


async def _no_such_method(_payload: memoryview) -> bytes:
    raise errors.Unimplemented("no such method")


class RpcServer:
    """Listens and answers. `handlers` maps method names to coroutine functions from payload to payload."""

    def __init__(
        self,
        handlers: Mapping[str, Handler],
        *,
        calls_max: int = limits.RPC_CALLS_MAX,
        frame_bytes_max: int = limits.RPC_FRAME_BYTES_MAX,
    ) -> None:
        self.handlers = dict(handlers)
        self.calls_max = calls_max
        self.frame_bytes_max = frame_bytes_max
        self.draining = False
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> str:
        """Listen; the address as `host:port`, with the port that was given out where `port` is 0."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port)
        bound = self._server.sockets[0].getsockname()
        return frames.join_address(bound[0], bound[1])

    async def drain(self, timeout_s: float) -> None:
        """Stop listening, refuse new calls with WrongWorker, wait until those in flight are answered; at most
        `timeout_s`.
        """
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.leave()
        tasks = [task for connection in self.connections for task in connection.calls.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    async def close(self) -> None:
        """Drop the connections, with whatever is still in flight on them."""
        self.draining = True
        if self._server is not None:
            self._server.close()
        tasks = [task for connection in self.connections for task in connection.calls.values()]
        for connection in list(self.connections):
            connection.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Connection(asyncio.Protocol):
    """One peer."""

    def __init__(self, server: RpcServer) -> None:
        self.calls: dict[int, asyncio.Task[None]] = {}
        self._server = server
        self._reader = FrameReader(server.frame_bytes_max)
        self._transport: asyncio.Transport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._reading = True
        self._leaving = False

    # ---- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        frames.tune(transport.get_extra_info("socket"))
        self._server.connections.add(self)
        if self._server.draining:
            self.leave()

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._reader.feed(data):
                self._accept(frame)
        except (BadFrame, msgspec.MsgspecError) as error:
            BAD_CONNECTIONS.inc()
            peer = self._transport.get_extra_info("peername") if self._transport else None
            log.warning("bad frame", peer=peer, error=str(error))
            self.abort()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._writable.set()  # whoever waits to write finds no transport
        self._server.connections.discard(self)
        for task in self.calls.values():
            task.cancel()

    # ---- requests

    def leave(self) -> None:
        """Tell the peer to call somebody else; the last answer closes the connection."""
        if not self._leaving:
            self._leaving = True
            self._send(FrameKind.LEAVING, 0, _NO_HEADER, b"")
        if not self.calls and self._transport is not None:
            self._transport.close()  # after what is buffered is sent

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _accept(self, frame: Frame) -> None:
        if frame.kind is FrameKind.CANCEL:
            task = self.calls.get(frame.call)
            if task is not None:
                task.cancel()
            return
        if frame.kind is not FrameKind.REQUEST or frame.call in self.calls:
            raise BadFrame(f"unexpected {frame.kind.name} of call {frame.call}")
        header = msgspec.msgpack.decode(frame.header, type=RequestHeader)
        if self._leaving:
            self._refuse(frame.call, errors.WrongWorker("draining"))
            return
        task = asyncio.create_task(self._answer(frame.call, header, frame.payload))
        task.add_done_callback(functools.partial(self._finished, frame.call))
        self.calls[frame.call] = task
        if len(self.calls) >= self._server.calls_max:
            self._set_reading(False)

    def _set_reading(self, reading: bool) -> None:
        if self._transport is not None and reading is not self._reading:
            self._reading = reading
            (self._transport.resume_reading if reading else self._transport.pause_reading)()

    def _finished(self, call: int, _task: asyncio.Task[None]) -> None:
        # A callback, not the task's own last lines: a task cancelled before its first step runs none of them.
        del self.calls[call]
        self._set_reading(True)
        if self._leaving:
            self.leave()

    async def _answer(self, call: int, header: RequestHeader, payload: memoryview) -> None:
        telemetry.request_id.set(header.request_id)
        begun = time.perf_counter()
        code = "cancelled"
        try:
            code = await self._perform(call, header, payload)
        finally:
            method = header.method if header.method in self._server.handlers else "unknown"
            took_s = time.perf_counter() - begun
            _counter(method, code).inc()
            _histogram(method).observe(took_s)
            log.debug("call", method=method, code=code, ms=round(took_s * 1000, 3))

    async def _perform(self, call: int, header: RequestHeader, payload: memoryview) -> str:
        """Answer the call, well or badly; the code for the metrics."""
        handler = self._server.handlers.get(header.method, _no_such_method)
        try:
            async with asyncio.timeout(header.timeout_ms / 1000) as deadline:
                answer = await handler(payload)
        except errors.PolychromeError as error:
            self._refuse(call, error)
            return error.code
        except asyncio.CancelledError:
            # Mostly the caller's own wish, and then nobody listens; but nobody may be left waiting in any case.
            self._refuse(call, errors.Unavailable("cancelled"))
            raise
        except Exception as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                self._refuse(call, errors.DeadlineExceeded("deadline exceeded"))
                return errors.DeadlineExceeded.code
            log.exception("call failed", method=header.method)
            self._refuse(call, errors.PolychromeError("internal error"))
            return errors.PolychromeError.code
        if len(answer) + frames.HEAD_BYTES > self._server.frame_bytes_max:
            self._refuse(call, errors.InvalidArgument(f"the answer has {len(answer)} bytes; ask for less"))
            return errors.InvalidArgument.code
        await self._writable.wait()
        self._send(FrameKind.ANSWER, call, _NO_HEADER, answer)
        return "ok"

    def _refuse(self, call: int, error: errors.PolychromeError) -> None:
        header = msgspec.msgpack.encode(ErrorHeader(error.code, error.message[: limits.RPC_HEADER_BYTES_MAX // 8]))
        self._send(FrameKind.ERROR, call, header, b"")

    def _send(self, kind: FrameKind, call: int, header: bytes, payload: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.writelines((frames.head(kind, call, header, len(payload)), payload))
