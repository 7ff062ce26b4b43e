"""Connections between simulated processes: bytes arrive in order on each, late, and not at all once it is cut.

Whatever talks over asyncio's transports (redis-py, the shared connection to Redis, the calls between processes) runs
unchanged over these.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Callable
from typing import Any, Final, cast

from tests.simulation.loop import CURRENT, Process, SimulatedLoop

HOST: Final = "127.0.0.1"
FIRST_PORT: Final = 10_000
REFUSED_S: Final = 0.001


class _Socket:
    """What programs ask of the socket behind a connection or a listener."""

    def __init__(self, name: tuple[str, int]) -> None:
        self._name = name

    def getsockname(self) -> tuple[str, int]:
        return self._name

    def setsockopt(self, *_option: Any) -> None:
        """Accepts everything."""


class Transport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network: Network, context: contextvars.Context, peername: tuple[str, int]) -> None:
        super().__init__({"peername": peername, "sockname": peername, "socket": _Socket(peername)})
        self.process: Process = context[CURRENT]
        self.peer: Transport | None = None
        self._network = network
        self._context = context
        self._protocol: asyncio.Protocol | None = None
        self._closing = False
        self._lost = False
        self._reading = True
        self._held: list[bytes] = []
        self._next_arrival_s = 0.0

    # ---- what protocols call

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = cast("asyncio.Protocol", protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        assert self._protocol is not None
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._closing and self.peer is not None and len(data):
            self._network.note_io(self.process)
            self._network.loop.call_at(self._arrival_s(), self.peer._receive, bytes(data), context=self.peer._context)
            self._network.maybe_cut(self)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if self.peer is not None and not self._closing:
            self._network.loop.call_at(self._arrival_s(), self.peer._end_of_file, context=self.peer._context)

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        if not self._closing:
            self.write_eof()
            self._closing = True
            self._network.loop.call_soon(self._lose, None, context=self._context)

    def abort(self) -> None:
        if not self._lost:
            self.cut(self._arrival_s())

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits to be written."""

    def pause_reading(self) -> None:
        self._reading = False

    def resume_reading(self) -> None:
        self._reading = True
        held, self._held = self._held, []
        for data in held:
            self._network.loop.call_soon(self._receive, data, context=self._context)

    def is_reading(self) -> bool:
        return self._reading

    # ---- what happens to it

    def made(self, protocol: asyncio.Protocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)

    def cut(self, noticed_s: float) -> None:
        """Both ends lose the connection, and what is on its way; this one now, the other one at that time."""
        self._closing = True
        error = ConnectionResetError("cut")
        self._network.loop.call_soon(self._lose, error, context=self._context)
        if self.peer is not None and not self.peer._lost:
            self.peer._closing = True
            self._network.loop.call_at(noticed_s, self.peer._lose, error, context=self.peer._context)

    def forsake(self, noticed_s: float) -> None:
        """The process at this end is gone: it hears nothing any more, and its peer notices at that time."""
        self._closing = self._lost = True
        if self.peer is not None and not self.peer._lost:
            error = ConnectionResetError("the peer is gone")
            self._network.loop.call_at(noticed_s, self.peer._lose, error, context=self.peer._context)

    def _arrival_s(self) -> float:
        arrival_s = self._network.loop.time() + self._network.delay_s()
        self._next_arrival_s = max(arrival_s, self._next_arrival_s)
        return self._next_arrival_s

    def _receive(self, data: bytes) -> None:
        if self._lost or self._protocol is None:
            return
        if self._closing and self.peer is not None and self.peer._closing:
            return
        if not self._reading or self._held:
            self._held.append(data)
            return
        self._protocol.data_received(data)

    def _end_of_file(self) -> None:
        if not self._lost and not self._closing and self._protocol is not None and not self._protocol.eof_received():
            self.close()

    def _lose(self, error: Exception | None) -> None:
        if not self._lost:
            self._lost = self._closing = True
            self._network.open.pop(self, None)
            if self._protocol is not None:
                self._protocol.connection_lost(error)


class Listener:
    """What `create_server` returns."""

    def __init__(self, network: Network, factory: Callable[[], asyncio.Protocol], port: int) -> None:
        self.context = CURRENT.get().context()
        self.factory = factory
        self.port = port
        self.sockets = [_Socket((HOST, port))]
        self._network = network

    def close(self) -> None:
        if self._network.listeners.get(self.port) is self:
            del self._network.listeners[self.port]


class Network:
    """All connections of a run. `delay_s_max` and `cut_chance` (of a write, after which its connection is cut) are
    set by what disturbs the run.
    """

    def __init__(self, loop: SimulatedLoop, seed: int) -> None:
        self.loop = loop
        self.chance = random.Random(f"network {seed}")
        self.delay_s_max = 0.002
        self.cut_chance = 0.0
        self.listeners: dict[int, Listener] = {}
        self.open: dict[Transport, None] = {}
        self._last_port = FIRST_PORT

    def delay_s(self) -> float:
        return self.chance.random() ** 3 * self.delay_s_max

    def note_io(self, process: Process) -> None:
        """The process has sent something: it may be told to pause at such a moment."""
        if process.pause_at_io is not None:
            count, pause_s = process.pause_at_io
            process.pause_at_io = (count - 1, pause_s) if count > 1 else None
            if count <= 1:
                process.paused_until_s = max(process.paused_until_s, self.loop.time() + pause_s)

    def maybe_cut(self, transport: Transport) -> None:
        if self.cut_chance and self.chance.random() < self.cut_chance:
            self.loop.call_later(self.delay_s(), self._cut, transport)

    def _cut(self, transport: Transport) -> None:
        if not transport._lost:
            transport.cut(self.loop.time() + self.delay_s())

    def listen(self, factory: Callable[[], asyncio.Protocol], host: str, port: int) -> Listener:
        if not port:
            self._last_port += 1
            port = self._last_port
        listener = self.listeners[port] = Listener(self, factory, port)
        return listener

    async def connect(self, factory: Callable[[], asyncio.Protocol], port: int) -> tuple[Transport, asyncio.Protocol]:
        """A connection to the listener of this port. Raises ConnectionRefusedError."""
        await asyncio.sleep(self.delay_s())
        listener = self.listeners.get(port)
        if listener is None:
            raise ConnectionRefusedError(f"nobody listens on {port}")
        near = Transport(self, CURRENT.get().context(), (HOST, port))
        far = Transport(self, listener.context, (HOST, FIRST_PORT))
        near.peer, far.peer = far, near
        self.open[near] = self.open[far] = None
        far._context.run(lambda: far.made(listener.factory()))
        await asyncio.sleep(self.delay_s())
        protocol = factory()
        near.made(protocol)
        return near, protocol

    def forsake(self, process: Process, *, silently_s: float) -> None:
        """Takes a dead process off the network. Its peers notice within `silently_s` seconds."""
        for port, listener in list(self.listeners.items()):
            if listener.context[CURRENT] is process:
                del self.listeners[port]
        for transport in [transport for transport in self.open if transport.process is process]:
            del self.open[transport]
            transport.forsake(self.loop.time() + self.chance.random() * silently_s)
