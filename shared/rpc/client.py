"""The calling side of calls between processes. The bytes are drawn in `shared.rpc.frames`.

Calls to one address are sent together in frames (`shared.rpc.frame_queue`) over a few connections (`shared.rpc.peer`).
Each is answered for itself, a long answer in chunks for callers that want that (`shared.rpc.chunks`). When a connection
drops, its calls fail with Unavailable at once, and the next frame opens a new one. Nothing is retried here: the caller
owns the deadline and knows which other address to ask.
"""

from __future__ import annotations

import asyncio
from typing import Final, cast

from shared import limits
from shared.errors import Unavailable
from shared.process.cluster_secret import ClusterSecret
from shared.rpc.answer_budget import FIRST_WINDOW_BYTES, AnswerBudget
from shared.rpc.chunks import Answer
from shared.rpc.client_call import ClientCall
from shared.rpc.deadline_timer import DeadlineTimer
from shared.rpc.peer import Peer

CONNECT_TIMEOUT_S: Final = 2.0
CONNECTIONS_PER_ADDRESS: Final = 2


class RpcClient:
    """Calls methods of other processes by address, `host:port`. `answers` is the memory budget of long answers. With
    the cluster's `secret`, it calls those alone that prove to know it.
    """

    def __init__(
        self,
        *,
        secret: ClusterSecret | None = None,
        connections_per_address: int = CONNECTIONS_PER_ADDRESS,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        frame_bytes_max: int = limits.RPC_FRAME_BYTES_MAX,
        answers_bytes_max: int = limits.ANSWERS_BYTES_MAX,
    ) -> None:
        self.answers = AnswerBudget(answers_bytes_max)
        self._secret = secret
        self._connections_per_address = connections_per_address
        self._connect_timeout_s = connect_timeout_s
        self._frame_bytes_max = frame_bytes_max
        self._peers: dict[str, Peer] = {}
        self._timer = DeadlineTimer(self._expire)
        self._closed = False

    def begin(
        self, address: str, method: str, payload: bytes, *, timeout_s: float, cost: float = 0.0
    ) -> asyncio.Future[memoryview]:
        """The answer's payload as a whole, when it comes.

        It fails with the error that the method raised, by its code; with Unavailable when the connection cannot be made
        or breaks (ConnectionLost: while the server may have worked on it); with DeadlineExceeded after `timeout_s`
        seconds. Cancelling it tells the server so. `cost` is an estimate of the work, which the server schedules by.
        """
        # An answer that no window was given for is never a ChunkStream.
        return cast("asyncio.Future[memoryview]", self._begin(address, method, payload, timeout_s, 0, cost))

    def begin_chunks(
        self, address: str, method: str, payload: bytes, *, timeout_s: float, cost: float = 0.0
    ) -> asyncio.Future[Answer]:
        """The answer's payload, when it comes: as a whole, or, when it is long, as a ChunkStream, of which the first
        chunk has come. It fails as `begin` does. Each further chunk may take as long as the first, once it is granted.

        A caller that is given a ChunkStream reads it to the end or closes it.
        """
        return self._begin(address, method, payload, timeout_s, FIRST_WINDOW_BYTES, cost)

    async def call(self, address: str, method: str, payload: bytes, *, timeout_s: float) -> memoryview:
        """`begin`, and wait for it."""
        return await self.begin(address, method, payload, timeout_s=timeout_s)

    async def close(self) -> None:
        """Drops all connections; calls in flight fail."""
        self._closed = True
        self._timer.stop()
        for peer in list(self._peers.values()):
            peer.close()
        self._peers.clear()

    def calls_open(self, address: str) -> int:
        """Calls to an address whose answers have not begun, for callers that choose between addresses."""
        peer = self._peers.get(address)
        return len(peer.open) if peer is not None else 0

    def _begin(
        self, address: str, method: str, payload: bytes, timeout_s: float, window: int, cost: float
    ) -> asyncio.Future[Answer]:
        peer = self._peers.get(address) or self._new_peer(address)
        call = ClientCall(peer, method, payload, timeout_s, window, cost)
        if self._closed:
            call.fail(Unavailable("this process is stopping"))
        elif len(payload) + limits.RPC_HEADER_BYTES_MAX > self._frame_bytes_max:
            call.fail(Unavailable(f"a call of {len(payload)} bytes is too large"))
        else:
            peer.send(call)
        self._timer.wake(peer.loop)
        return call.answer

    def _new_peer(self, address: str) -> Peer:
        peer = self._peers[address] = Peer(
            address,
            self.answers,
            connections_max=self._connections_per_address,
            connect_timeout_s=self._connect_timeout_s,
            frame_bytes_max=self._frame_bytes_max,
            on_unused=self._forget,
            secret=self._secret,
        )
        return peer

    def _forget(self, address: str) -> None:
        """Addresses come and go with the processes behind them."""
        self._peers.pop(address, None)

    def _expire(self, now_s: float) -> bool:
        """Fails the calls whose time is over; whether any are left."""
        peers = list(self._peers.values())
        for peer in peers:
            peer.expire(now_s)
        return any(peer.open or peer.streaming for peer in peers)
