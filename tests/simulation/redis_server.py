"""The model of a Redis server: connections that speak its protocol, scripts, and what of its data outlives a crash.

What was acknowledged is durable, as with `appendfsync always`: commands are executed at once, and their replies are
sent after the next sync. So an ordinary crash keeps every command up to the last sync, and any number of those after
it. A server may also come back with less, or with nothing: an older disk, a lost volume. Each start is another run,
which knows no scripts.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Final

import hiredis

from tests.simulation import redis_sorted_sets, redis_streams  # noqa: F401 (their commands)
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import Network
from tests.simulation.redis_data import UNKNOWN, CommandError, Data, Effect, Reply, Status
from tests.simulation.redis_lua import SCRIPTS

PORT: Final = 6379
SYNC_S_MAX: Final = 0.001
"""Longest time between the execution of a command and the sync that makes it durable, in virtual seconds."""

_IGNORED: Final = frozenset({b"CLIENT", b"SELECT", b"PING", b"READONLY"})

Observe = Callable[[Effect], None]
"""Called with every effect of a command."""


class RedisServer:
    """One server at a time; `crash` and `start` make the next run of it."""

    def __init__(self, loop: SimulatedLoop, network: Network, now_s: Callable[[], float], observe: Observe) -> None:
        self.loop = loop
        self.network = network
        self.process: Process | None = None
        self.run = ""
        self.data = Data(lambda: int(now_s() * 1000))
        self.scripts: set[str] = set()
        self.durable: list[list[Effect]] = []
        """The effects of each command that had any, in their order."""
        self.acknowledged = 0
        """How many of them every client may know of."""
        self._now_s = now_s
        self._observe = observe
        self._chance = random.Random(loop.chance.random())
        self._unsent: list[tuple[Any, bytes]] = []

    @property
    def running(self) -> bool:
        return self.process is not None

    def start(self) -> None:
        """Starts the server on what is durable."""
        self.process = self.loop.new_process("redis")
        self.run = f"{self._chance.getrandbits(160):040x}"
        self.scripts = set()
        self._unsent = []
        self.data = Data(lambda: int(self._now_s() * 1000))
        for effects in self.durable:
            self.data.repeat(effects)
        self.acknowledged = len(self.durable)
        self.process.context().run(self.network.listen, lambda: _Connection(self), "127.0.0.1", PORT)

    def crash(self, *, lose: int = 0) -> list[Effect]:
        """Ends the server at once. It will come back without some unacknowledged commands, perhaps, and without the
        last `lose` of the others; returns the effects of what it forgets.
        """
        assert self.process is not None
        self.network.forsake(self.process, silently_s=0.002)
        self.process.ready.clear()
        self.loop.processes.remove(self.process)
        self.process = None
        kept = self._chance.randint(self.acknowledged, len(self.durable))
        kept = max(0, kept - lose)
        forgotten = [effect for effects in self.durable[kept:] for effect in effects]
        del self.durable[kept:]
        return forgotten

    def execute(self, args: list[bytes]) -> Reply:
        """Executes a command as a client sends it. Raises CommandError."""
        try:
            return self._dispatch(args)
        finally:
            effects, self.data.effects = self.data.effects, []
            if effects:
                self.durable.append(effects)
                for effect in effects:
                    self._observe(effect)

    def reply(self, transport: Any, replies: bytes) -> None:
        """Sends replies after the next sync."""
        if not self._unsent:
            self.loop.call_later(SYNC_S_MAX * self._chance.random(), self._sync, self.run)
        self._unsent.append((transport, replies))

    def _sync(self, run: str) -> None:
        if run != self.run or not self.running:
            return
        self.acknowledged = len(self.durable)
        unsent, self._unsent = self._unsent, []
        for transport, replies in unsent:
            transport.write(replies)

    def _dispatch(self, args: list[bytes]) -> Reply:
        name = args[0].upper()
        if name in _IGNORED:
            return Status(b"PONG" if name == b"PING" else b"OK")
        if name == b"INFO":
            return b"# Server\r\nredis_version:7.2.0\r\nrun_id:" + self.run.encode() + b"\r\n"
        if name in (b"SCRIPT", b"SCRIPT LOAD"):
            sha = SCRIPTS.sha_of(args[-1])
            self.scripts.add(sha)
            return sha.encode()
        if name in (b"EVAL", b"EVALSHA"):
            sha = args[1].decode() if name == b"EVALSHA" else SCRIPTS.sha_of(args[1])
            if name == b"EVAL":
                self.scripts.add(sha)
            elif sha not in self.scripts:
                raise CommandError("NOSCRIPT No matching script. Please use EVAL.")
            count = int(args[2])
            return SCRIPTS.run(self.data, sha, args[3 : 3 + count], args[3 + count :])
        return self.data.call(args)


class _Connection(asyncio.Protocol):
    """A client's connection."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._reader = hiredis.Reader()
        self._transport: Any = None
        self._queued: list[list[bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        replies: list[bytes] = []
        while isinstance(command := self._reader.gets(), list):
            if command[0].upper() == b"BLPOP":
                self._wait(command)
            else:
                replies.append(self._answer(command))
        if replies:
            self._server.reply(self._transport, b"".join(replies))

    def _wait(self, command: list[bytes]) -> None:
        """Answers after the time that the client is willing to wait. The project waits so for what nobody ever adds."""
        assert not any(self._server.data.find(key, list) for key in command[1:-1])
        self._server.loop.call_later(float(command[-1]), self._server.reply, self._transport, b"*-1\r\n")

    def _answer(self, command: list[bytes]) -> bytes:
        name = command[0].upper()
        try:
            if name == b"MULTI":
                self._queued = []
                return b"+OK\r\n"
            if name == b"EXEC":
                queued, self._queued = self._queued or [], None
                return b"*%d\r\n" % len(queued) + b"".join(self._answer(each) for each in queued)
            if self._queued is not None:
                self._queued.append(command)
                return b"+QUEUED\r\n"
            return encoded(self._server.execute(command))
        except CommandError as error:
            if UNKNOWN in str(error):
                raise
            return b"-" + str(error).replace("\n", " ").encode() + b"\r\n"


def encoded(reply: Reply) -> bytes:
    """A reply as it goes over the wire."""
    match reply:
        case None:
            return b"$-1\r\n"
        case Status():
            return b"+" + reply + b"\r\n"
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case int():
            return b":%d\r\n" % reply
    return b"*%d\r\n" % len(reply) + b"".join(map(encoded, reply))
