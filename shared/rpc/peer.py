"""An address that a client calls: its open calls, and the connections to it.

There are a few persistent connections per address, opened when the others are busy; a frame takes the one with the
fewest calls in flight. Frames that need a connection that is still being made wait for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from shared.errors import DeadlineExceeded, Unavailable
from shared.process.cluster_secret import ClusterSecret
from shared.rpc import frames
from shared.rpc.answer_budget import AnswerBudget
from shared.rpc.client_call import ClientCall
from shared.rpc.client_connection import ClientConnection
from shared.rpc.frame_queue import FrameQueue


class Peer:
    """`open` are the calls whose answer has not begun, `streaming` those of whose answer chunks are still to come."""

    def __init__(
        self,
        address: str,
        answers: AnswerBudget,
        *,
        connections_max: int,
        connect_timeout_s: float,
        frame_bytes_max: int,
        on_unused: Callable[[str], None],
        secret: ClusterSecret | None,
    ) -> None:
        """`on_unused` is called with the address when there are neither calls nor connections any more."""
        self._secret = secret
        self.loop = asyncio.get_running_loop()
        self.answers = answers
        self.open: set[ClientCall] = set()
        self.streaming: set[ClientCall] = set()
        self._address = address
        self._connections_max = connections_max
        self._connect_timeout_s = connect_timeout_s
        self._frame_bytes_max = frame_bytes_max
        self._on_unused = on_unused
        self._queue = FrameQueue(self.loop, self._send_frame)
        self._connections: list[ClientConnection] = []
        self._queued_frames: list[Sequence[ClientCall]] = []  # they wait for the connection that is being made
        self._connecting: asyncio.Task[None] | None = None

    # ---- calls

    def send(self, call: ClientCall) -> None:
        """Sends the call, now or soon together with others."""
        self.open.add(call)
        self._queue.add(call)

    def answer_began(self, call: ClientCall) -> None:
        """The first chunk of the answer has come."""
        self.open.discard(call)
        self.streaming.add(call)
        if call.frame is not None and not call.frame.is_answered:
            self._queue.note_answer(call.frame)

    def call_ended(self, call: ClientCall) -> None:
        """The call has its whole answer, or has failed, or nobody waits for it any more."""
        self.open.discard(call)
        if self.streaming:
            self.streaming.discard(call)
        if call.connection is not None:
            call.connection.end(call)
        if call.frame is not None and not call.frame.is_answered:
            self._queue.note_answer(call.frame)
        if not self.open and not self.streaming:
            self._note_unused()

    def expire(self, now_s: float) -> None:
        """Fails the calls whose time is over."""
        for call in [call for call in (*self.open, *self.streaming) if call.deadline_s <= now_s]:
            call.fail(DeadlineExceeded(f"{call.method} at {self._address} took too long"))

    def close(self) -> None:
        """Drops the connections; all calls fail."""
        if self._connecting is not None:
            self._connecting.cancel()
        for connection in list(self._connections):
            connection.abort()
        for call in (*self.open, *self.streaming):
            call.fail(Unavailable("this process is stopping"))

    # ---- connections

    def _send_frame(self, calls: Sequence[ClientCall]) -> None:
        connection = self._connection()
        if connection is not None:
            connection.send(calls)
            return
        self._queued_frames.append(calls)
        if self._connecting is None:
            self._connecting = self.loop.create_task(self._connect())

    def _connection(self) -> ClientConnection | None:
        """The connection to send on; None when a new one should be made for it."""
        usable = [connection for connection in self._connections if connection.is_usable]
        best = min(usable, key=_load, default=None)
        if best is None or (best.calls and len(usable) < self._connections_max):
            return best if best is not None and self._connecting is not None else None
        return best

    async def _connect(self) -> None:
        """Makes a connection and sends the frames that wait for it, whichever of their callers have given up."""
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                connection = await self._open()
        except (OSError, ValueError) as error:  # TimeoutError is an OSError
            refused = Unavailable(f"cannot reach {self._address}: {error or type(error).__name__}")
            for calls in self._take_queued_frames():
                for call in calls:
                    call.fail(refused)
            self._note_unused()
            return
        self._connections.append(connection)
        for calls in self._take_queued_frames():
            waiting = [call for call in calls if not call.answer.done()]
            if waiting:
                connection.send(waiting)

    async def _open(self) -> ClientConnection:
        """A connection whose server has proved itself. Raises OSError, ValueError."""
        host, port = frames.split_address(self._address)
        _, connection = await self.loop.create_connection(self._new_connection, host, port)
        try:
            await connection.proven
        except BaseException:
            connection.abort()
            raise
        return connection

    def _take_queued_frames(self) -> list[Sequence[ClientCall]]:
        self._connecting = None
        queued, self._queued_frames = self._queued_frames, []
        return queued

    def _new_connection(self) -> ClientConnection:
        secrets = self._secret.current() if self._secret is not None else ()
        return ClientConnection(self._address, self._frame_bytes_max, self._connection_lost, secrets)

    def _connection_lost(self, connection: ClientConnection) -> None:
        if connection in self._connections:
            self._connections.remove(connection)
        self._note_unused()

    def _note_unused(self) -> None:
        if not self.open and not self.streaming and not self._connections and self._connecting is None:
            self._on_unused(self._address)


def _load(connection: ClientConnection) -> int:
    return len(connection.calls)
