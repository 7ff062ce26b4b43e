"""The answering side of calls between processes. The bytes are drawn in `shared.rpc.frames`.

A method is served by a plain function that is given the calls that came together (`shared.rpc.server_call.Serve`), so
that it can share work among them, and that answers each for itself, now or later. Errors of the project's family travel
as code and message, anything else as «internal» with its traceback in the log. A call is `done` when it was answered,
when its caller has no time left, when the caller cancelled it and when the connection is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from shared import errors, limits
from shared.process import telemetry
from shared.rpc import frames
from shared.rpc.deadline_timer import DeadlineTimer
from shared.rpc.outgoing import UnsentBytes
from shared.rpc.server_call import Serve
from shared.rpc.server_connection import ServerConnection

log = telemetry.get_logger(__name__)


class RpcServer:
    """Listens, and hands calls to the functions that serve them, by method.

    `calls_max` are the calls of one connection that are worked on at once, others wait; `frame_bytes_max` is the
    longest frame, call and answer.
    """

    def __init__(
        self,
        methods: Mapping[str, Serve],
        *,
        calls_max: int = limits.RPC_CALLS_MAX,
        frame_bytes_max: int = limits.RPC_FRAME_BYTES_MAX,
    ) -> None:
        self.methods = dict(methods)
        self.calls_max = calls_max
        self.frame_bytes_max = frame_bytes_max
        self.draining = False
        self.connections: set[ServerConnection] = set()
        self.unsent = UnsentBytes()
        self._server: asyncio.Server | None = None
        self._timer = DeadlineTimer(self._expire)
        self._all_closed = asyncio.Event()

    async def start(self, host: str, port: int) -> str:
        """Listens; returns the address as `host:port`, with the port that was given out where `port` is 0."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: ServerConnection(self, loop), host, port)
        bound = self._server.sockets[0].getsockname()
        return frames.join_address(bound[0], bound[1])

    async def drain(self, timeout_s: float) -> None:
        """Stops listening, refuses new calls with WrongWorker, and delivers the answers to the calls in flight; for at
        most `timeout_s` seconds.

        1. The listener closes. Every peer is told to send its calls elsewhere; those that cross this are refused.
        2. A connection on which the last call was answered is closed for writing once everything is sent. The peer
           reads to the end, then closes its side.
        3. Only that says that the answers have arrived, and draining waits for it. Closing both sides at once would
           not do: a socket that is closed while something unread lies in it, such as a call that crossed, is reset,
           and what it had still to deliver is lost.

        When the time is over, `close` drops what is left: a peer that reads nothing cannot hold the process up.
        """
        self.draining = True
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.leave()
        self.note_closed()
        try:
            async with asyncio.timeout(timeout_s):
                await self._all_closed.wait()
        except TimeoutError:
            calls = sum(len(connection.calls) for connection in self.connections)
            log.warning("answers_undelivered", connections=len(self.connections), calls_unanswered=calls)

    async def close(self) -> None:
        """Drops the connections, with what is still in flight on them."""
        self.draining = True
        self._timer.stop()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()

    def note_calls(self, loop: asyncio.AbstractEventLoop) -> None:
        """Calls have come, with deadlines."""
        self._timer.wake(loop)

    def note_closed(self) -> None:
        """A connection has closed; `drain` waits for the last one."""
        if self.draining and not self.connections:
            self._all_closed.set()

    def _expire(self, now: float) -> bool:
        """Fails the calls whose time is over; whether any are left."""
        for connection in list(self.connections):
            for call in [call for call in connection.calls.values() if call.deadline_s <= now]:
                call.fail(errors.DeadlineExceeded("deadline exceeded"))
        return any(connection.calls for connection in self.connections)
