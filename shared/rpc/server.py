"""The answering side of calls between processes. The bytes are drawn in `shared.rpc.frames`.

A method is served by a plain function that is given the calls that came together (`shared.rpc.server_call.Serve`), so
that it can share work among them, and that answers each for itself, now or later. Errors of the project's family travel
as code and message, anything else as «internal» with its traceback in the log. A call is `done` when it was answered,
when its caller has no time left, when the caller cancelled it and when the connection is lost.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from shared import errors, limits
from shared.process import telemetry
from shared.process.cluster_secret import ROTATION_CHECK_S, ClusterSecret
from shared.rpc import frames
from shared.rpc.deadline_timer import DeadlineTimer
from shared.rpc.outgoing import UnsentBytes
from shared.rpc.server_call import Serve
from shared.rpc.server_connection import ServerConnection

UNPROVEN_MAX: Final = 256
"""Connections of a server that have not proved themselves, at most."""

log = telemetry.get_logger(__name__)


class RpcServer:
    """Listens, and hands calls to the functions that serve them, by method.

    `calls_max` are the calls of one connection that are worked on at once, others wait; `frame_bytes_max` is the
    longest frame, call and answer. With the cluster's `secret`, it answers those alone that prove to know it.
    """

    def __init__(
        self,
        methods: Mapping[str, Serve],
        *,
        calls_max: int = limits.RPC_CALLS_MAX,
        frame_bytes_max: int = limits.RPC_FRAME_BYTES_MAX,
        secret: ClusterSecret | None = None,
    ) -> None:
        self._secret = secret
        self._secret_timer: asyncio.TimerHandle | None = None
        self.unproven: dict[ServerConnection, None] = {}
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
        """Listens; returns the address as `host:port`, with the port that was given out where `port` is 0. Raises
        OSError, also when the file of the secret cannot be read, and ValueError when what is in it is no secret.
        """
        loop = asyncio.get_running_loop()
        if self._secret is not None:
            self._secret.load()
            self._look_at_secret(self._secret, loop)
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
        if self._secret_timer is not None:
            self._secret_timer.cancel()
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()

    @property
    def secrets(self) -> Sequence[bytes]:
        """The cluster's secrets as their file has them now; none: peers need not prove anything."""
        return self._secret.current() if self._secret is not None else ()

    def note_unproven(self, connection: ServerConnection) -> None:
        """A connection was opened. When very many have not proved themselves, the oldest of these is dropped: a process
        of the cluster needs a moment only, so it finds a place however many others come.
        """
        self.unproven[connection] = None
        if len(self.unproven) > UNPROVEN_MAX:
            next(iter(self.unproven)).abort()

    def _look_at_secret(self, secret: ClusterSecret, loop: asyncio.AbstractEventLoop) -> None:
        """Now and then: connections by a secret that holds no longer take no more calls."""
        self._secret_timer = loop.call_later(ROTATION_CHECK_S, self._look_at_secret, secret, loop)
        if secret.load():
            log.info("cluster_secret_changed", accepted=len(secret.current()))
            for connection in [each for each in self.connections if each.secret not in (None, *secret.current())]:
                connection.leave()

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
