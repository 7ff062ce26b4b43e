"""The load generator: closed loops of n clients, all in one process of their own that is not counted.

It shares the cores with the servers, so it does next to nothing per request: sockets without a library around them,
requests whose bytes are made beforehand, one epoll, and of an answer only its status and length are looked at. The
answers that are asked for are kept and checked by the caller afterwards. The process is forked, so that it has the
bodies without copying them.
"""

import itertools
import multiprocessing
import select
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

import numpy as np

REQUEST_TIMEOUT_S: Final = 600.0
_JOINED_BYTES_MAX: Final = 64 * 1024
_BUFFER_BYTES: Final = 1024 * 1024
_HEAD_END: Final = b"\r\n\r\n"


@dataclass(frozen=True)
class Request:
    """`path` with the leading slash."""

    method: str
    path: str
    body: bytes = b""

    def head(self, host: str) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", f"host: {host}", "accept: application/json"]
        if self.method != "GET":
            lines += ["content-type: application/json", f"content-length: {len(self.body)}"]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()


@dataclass(frozen=True)
class Work:
    """The requests to send. `seconds`: go round the requests for that long, from number `first` on; None: each once.
    `keep`: that many answers are kept, each request's first.
    """

    port: int
    requests: Sequence[Request]
    clients: int
    seconds: float | None = None
    first: int = 0
    keep: int = 0


@dataclass(frozen=True)
class Done:
    """`latencies_s` and `numbers` (of the requests) in the order of completion. `answers`: bodies by number."""

    elapsed_s: float
    latencies_s: np.ndarray
    numbers: np.ndarray
    answers: dict[int, bytes]

    @property
    def count(self) -> int:
        return len(self.latencies_s)

    @property
    def per_s(self) -> float:
        return self.count / self.elapsed_s

    def latency_ms(self, quantile: float) -> float:
        return float(np.quantile(self.latencies_s, quantile) * 1000)


class Running:
    """Work that is being done. Whoever started it takes the result."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("fork")
        self._result, result = context.Pipe(duplex=False)
        stop, self._stop = context.Pipe(duplex=False)
        self._process = context.Process(target=_process, args=(work, result, stop), daemon=True)
        self._process.start()
        result.close()
        stop.close()

    def stop(self) -> None:
        """No new requests; those in flight are waited for."""
        self._stop.send(None)

    def result(self) -> Done:
        try:
            done: Done | Exception = self._result.recv()
        except EOFError:
            raise RuntimeError("the load generator died") from None
        finally:
            self._process.join()
            self._stop.close()
        if isinstance(done, Exception):
            raise done
        return done

    def end(self) -> None:
        """Whatever state it is in."""
        self._process.kill()
        self._process.join()


def run(work: Work) -> Done:
    return Running(work).result()


def _process(work: Work, result: Connection, stop: Connection) -> None:
    try:
        result.send(_Loop(work, stop).run())
    except Exception as error:  # it is raised in the process that waits
        result.send(error)


@dataclass(slots=True)
class _Client:
    """A connection with at most one request in flight. `missing`: bytes of the answer still to come, -1 for an answer
    in chunks, None before its head.
    """

    socket: socket.socket
    number: int = -1
    sent_s: float = 0.0
    unsent: memoryview | None = None
    missing: int | None = None
    body: list[bytes] | None = None
    tail: bytes = b""
    chunked: bool = field(default=False)


class _Loop:
    def __init__(self, work: Work, stop: Connection) -> None:
        host = f"127.0.0.1:{work.port}"
        self._work = work
        self._heads = [request.head(host) for request in work.requests]
        self._messages = [
            head + request.body if len(request.body) <= _JOINED_BYTES_MAX else head
            for head, request in zip(self._heads, work.requests, strict=True)
        ]
        self._turns = self._order()
        self._stop = stop
        self._epoll = select.epoll()
        self._buffer = bytearray(_BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._stop_s = float("inf")
        self._done: list[tuple[int, float]] = []
        self._answers: dict[int, bytes] = {}

    def run(self) -> Done:
        clients = {}
        for _ in range(self._work.clients):
            connection = socket.create_connection(("127.0.0.1", self._work.port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            clients[connection.fileno()] = _Client(connection)
            self._epoll.register(connection.fileno(), select.EPOLLIN)
        self._epoll.register(self._stop.fileno(), select.EPOLLIN)
        began_s = time.perf_counter()
        if self._work.seconds is not None:
            self._stop_s = began_s + self._work.seconds
        busy = sum(self._begin(client) for client in clients.values())
        while busy:
            events = self._epoll.poll(REQUEST_TIMEOUT_S)
            if not events:
                raise TimeoutError(f"no answer in {REQUEST_TIMEOUT_S} s")
            for descriptor, event in events:
                client = clients.get(descriptor)
                if client is None:
                    self._stop_s = 0.0
                    self._epoll.unregister(descriptor)
                elif event & select.EPOLLOUT:
                    self._send(client)
                elif self._receive(client):
                    busy -= not self._begin(client)
        elapsed_s = time.perf_counter() - began_s
        for client in clients.values():
            client.socket.close()
        numbers, latencies_s = zip(*self._done, strict=True)
        return Done(elapsed_s, np.array(latencies_s), np.array(numbers), self._answers)

    def _order(self) -> Iterator[int]:
        count = len(self._work.requests)
        if self._work.seconds is None:
            return iter(range(count))
        first = self._work.first % count
        return itertools.cycle([*range(first, count), *range(first)])

    def _begin(self, client: _Client) -> bool:
        """Send the next request; False when there is none."""
        if time.perf_counter() >= self._stop_s or (number := next(self._turns, None)) is None:
            return False
        wanted = len(self._answers) < self._work.keep and number not in self._answers
        client.number, client.missing, client.body = number, None, [] if wanted else None
        message = self._messages[number]
        client.sent_s = time.perf_counter()
        body = self._work.requests[number].body
        if len(body) > _JOINED_BYTES_MAX:
            client.socket.sendall(message)  # a head fits the empty buffer of a socket
            client.unsent = memoryview(body)
            self._epoll.modify(client.socket.fileno(), select.EPOLLOUT)
            self._send(client)
        elif (sent := client.socket.send(message)) < len(message):
            client.unsent = memoryview(message)[sent:]
            self._epoll.modify(client.socket.fileno(), select.EPOLLOUT)
        return True

    def _send(self, client: _Client) -> None:
        assert client.unsent is not None
        try:
            client.unsent = client.unsent[client.socket.send(client.unsent) :]
        except BlockingIOError:
            return
        if not client.unsent:
            client.unsent = None
            self._epoll.modify(client.socket.fileno(), select.EPOLLIN)

    def _receive(self, client: _Client) -> bool:
        """Whether the answer is complete."""
        got = client.socket.recv_into(self._buffer)
        if not got:
            raise ConnectionError(f"{self._asked(client)}: the server closed the connection")
        begin = 0
        if client.missing is None:
            begin = self._head(client, got)
        if client.body is not None:
            client.body.append(bytes(self._view[begin:got]))
        if client.chunked:
            client.tail = (client.tail + bytes(self._view[max(begin, got - 5) : got]))[-5:]
            complete = client.tail == b"0\r\n\r\n"
        else:
            client.missing = (client.missing or 0) - (got - begin)
            complete = client.missing <= 0
        if not complete:
            return False
        self._done.append((client.number, time.perf_counter() - client.sent_s))
        if client.body is not None:
            body = b"".join(client.body)
            self._answers[client.number] = dechunked(body) if client.chunked else body
        return True

    def _head(self, client: _Client, got: int) -> int:
        """Reads the answer's head, which came as a whole. Returns where the body begins."""
        end = self._buffer.find(_HEAD_END, 0, got)
        if end < 0:
            raise ConnectionError(f"{self._asked(client)}: {got} bytes without the end of a head")
        status, length = answer_head(bytes(self._view[:end]))
        if status >= 300:
            text = bytes(self._view[end:got]).decode(errors="replace").strip()
            raise RuntimeError(f"{self._asked(client)}: {status} {text[:500]}")
        client.chunked = length is None
        client.missing = length or 0
        client.tail = b""
        return end + len(_HEAD_END)

    def _asked(self, client: _Client) -> str:
        request = self._work.requests[client.number]
        return f"{request.method} {request.path}"


def answer_head(head: bytes) -> tuple[int, int | None]:
    """Status and length of the body; None for one in chunks."""
    at = (lowered := head.lower()).find(b"\r\ncontent-length:")
    if at < 0:
        return int(head[9:12]), None
    end = lowered.find(b"\r\n", at + 2)
    return int(head[9:12]), int(lowered[at + 17 : end if end > 0 else len(lowered)])


def dechunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    at = 0
    while True:
        end = body.index(b"\r\n", at)
        if (size := int(body[at:end].partition(b";")[0], 16)) == 0:
            return b"".join(parts)
        parts.append(body[end + 2 : end + 2 + size])
        at = end + 4 + size
