"""The HTTP server: a listening socket, its connections, their timeouts, the orderly end.

aiohttp closes connections that idle between requests, but not a connection that never finishes the headers of its first
request; a loop here does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, cast

from aiohttp import http_exceptions, web

from frontend.http.edge import Edge, InFlight
from frontend.http.errors import internal_error_response, malformed_request_response
from frontend.http.listener import Listener
from frontend.http.sending import WatchedConnection
from frontend.http.tls import Tls
from shared.process.config import ConfigError

URL_BYTES_MAX: Final = 64 * 1024
HEADER_BYTES_MAX: Final = 64 * 1024
LISTEN_BACKLOG: Final = 1024
SILENT_CHECK_S: Final = 1.0
"""Pause between two searches for connections that have not sent a first request in time, in seconds."""

IDLE_CHECK_S: Final = 0.05
"""Pause between two searches of a draining server for connections that have become idle, in seconds."""

NOTICE_S: Final = 0.3
"""Time that a draining server leaves idle connections open, in seconds: a request that is on its way meanwhile is
answered, and its answer announces the end of the connection.
"""

ACCEPT_TURNS: Final = 4
"""Turns of the event loop after which connections that it had accepted before the server stopped listening are open."""

CLOSE_TIMEOUT_S: Final = 0.5
"""Longest time that closing waits for handlers to end by themselves, and then for connections to be closed, in seconds.
Short, for draining has waited for them."""

HANDSHAKE_S: Final = 10.0
"""Longest time that a client may take for its TLS handshake, in seconds."""

LINGER_S: Final = 5.0
"""Longest time that the rest of a refused body is read and dropped, so that the client can read why, in seconds."""


def _not_the_clients_fault(record: logging.LogRecord) -> bool:
    """Keeps requests that are not HTTP out of the log: they are answered with 400, and anyone can send them."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, http_exceptions.HttpProcessingError)


class OpenConnections:
    """The connections whose sockets are open. A connection that was closed stays among them until all that was written
    to it has been handed to the kernel.
    """

    def __init__(self) -> None:
        self._open: set[object] = set()
        self._none = asyncio.Event()
        self._none.set()

    def add(self, connection: object) -> None:
        """The connection was opened."""
        self._open.add(connection)
        self._none.clear()

    def discard(self, connection: object) -> None:
        """The connection's socket is closed."""
        self._open.discard(connection)
        if not self._open:
            self._none.set()

    async def all_closed(self) -> None:
        """Waits until no connection is open."""
        await self._none.wait()


class _Connection(WatchedConnection):
    """A connection that answers bytes which are not HTTP with an error as docs/wire.md, section 2, has them. The
    library's own answer would show its parser and its version.
    """

    def __init__(self, in_flight: InFlight, open_connections: OpenConnections, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_flight = in_flight
        self._open_connections = open_connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop, even after the server has stopped listening: for what had been accepted before."""
        super().connection_made(transport)
        self._open_connections.add(self)
        if self._in_flight.draining:
            asyncio.get_running_loop().call_later(NOTICE_S, self.close_if_idle)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the event loop."""
        super().connection_lost(exc)
        self._open_connections.discard(self)

    def close_if_idle(self) -> None:
        """Closes the connection unless a request has arrived that is not answered yet.

        The library's `close` is not for this. It drops all that arrives from then on: of a connection with a request
        under way the rest of the body, which the handler then waits for in vain. And it ends the task of an idle
        connection and leaves the socket open: a request that the client sends then is never read.
        """
        waits_for_a_request = self._waiter is not None and not self._waiter.done()
        never_asked = self._request_count == 0
        if (waits_for_a_request or never_asked) and not self._has_bytes_to_read():
            self.force_close()

    def _has_bytes_to_read(self) -> bool:
        """Whether something has arrived that the event loop has not read yet: closing the socket would reset the
        connection of a client that has sent its request.
        """
        if self.transport is None or self.transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket").fileno(), select.POLLIN)
        return bool(poll.poll(0))

    def handle_error(self, *args: Any, **kwargs: Any) -> web.StreamResponse:
        """The response to bytes that are not HTTP, or to a fault of the library."""
        own = super().handle_error(*args, **kwargs)
        answer = malformed_request_response() if own.status == 400 else internal_error_response()
        answer.force_close()
        return answer


class HttpServer:
    """Serves one application on the listening sockets of one address."""

    def __init__(self, edge: Edge, listener: Listener) -> None:
        self.edge = edge
        self._listener = listener
        self.tls = Tls(listener.tls) if listener.tls is not None else None
        """The certificate, None for plain HTTP."""
        logger = logging.getLogger("frontend.http")
        logger.addFilter(_not_the_clients_fault)
        handler: Any = edge  # takes the requests that `edge.request` makes
        self._server = web.Server(handler, request_factory=edge.request)
        self._settings: dict[str, Any] = {
            "access_log": None,
            "logger": logger,
            "auto_decompress": False,
            "keepalive_timeout": listener.keepalive_timeout_s,
            "max_line_size": URL_BYTES_MAX,
            "max_field_size": HEADER_BYTES_MAX,
            "lingering_time": LINGER_S,
        }
        self.address = ""
        """host:port that is listened on."""
        self._listening: list[asyncio.Server] = []
        self._open_connections = OpenConnections()
        self._silent_since_s: dict[web.RequestHandler, float] = {}

    async def start(self) -> None:
        """Listens. Raises OSError when the address is taken."""
        if self._listener.fds:
            for fd in self._listener.fds:
                await self._listen(sock=socket.socket(fileno=fd))
        else:
            reuse_port = self._listener.reuse_port and hasattr(socket, "SO_REUSEPORT")
            await self._listen(
                host=self._listener.host, port=self._listener.port, reuse_address=True, reuse_port=reuse_port
            )
        host, port = self._listening[0].sockets[0].getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def _listen(self, **where: Any) -> None:
        loop = asyncio.get_running_loop()
        server: asyncio.Server = await loop.create_server(
            self._connection, backlog=LISTEN_BACKLOG, **where, **self._tls_options()
        )
        self._listening.append(server)

    def _tls_options(self) -> dict[str, Any]:
        return {} if self.tls is None else {"ssl": self.tls.context, "ssl_handshake_timeout": HANDSHAKE_S}

    def _connection(self) -> _Connection:
        loop = asyncio.get_running_loop()
        return _Connection(self.edge.in_flight, self._open_connections, self._server, loop=loop, **self._settings)

    async def drain(self) -> None:
        """Stops listening and waits until the requests in hand are answered and their answers delivered.

        Idle connections are closed after NOTICE_S. The others are left to go on, for their requests may have bodies
        that are still arriving: answers from now on announce the end of the connection (`Edge`), which then ends by
        itself; and one whose answer had been begun before is closed when it has become idle. Clients may be long in
        sending and in taking: the caller bounds how long that is waited for. Then the kernel has all of every answer.
        """
        self.edge.in_flight.draining = True
        waiting = [] if self._listener.fds else self._accept_waiting()
        self._stop_listening()
        for accepted in waiting:
            with contextlib.suppress(OSError):  # a client that does not finish its TLS handshake
                await asyncio.get_running_loop().connect_accepted_socket(
                    self._connection, accepted, **self._tls_options()
                )
        for _ in range(ACCEPT_TURNS):
            await asyncio.sleep(0)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(NOTICE_S):
                await self._open_connections.all_closed()
        while True:
            for connection in self._server.connections:
                cast("_Connection", connection).close_if_idle()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_CHECK_S):
                    await self._open_connections.all_closed()
                break
        await self.edge.in_flight.idle.wait()

    async def close(self) -> None:
        """Stops listening, closes all connections, and writes what is left of the access log."""
        self._stop_listening()
        self._server.pre_shutdown()
        await self._server.shutdown(CLOSE_TIMEOUT_S)
        self.edge.access_log.flush()

    def _accept_waiting(self) -> list[socket.socket]:
        """Accepts the connections that wait in the queues of this process's own listening sockets: they would be reset
        when these are closed. (Those of inherited sockets are accepted by other processes.)
        """
        accepted: list[socket.socket] = []
        for listening in (each for server in self._listening for each in server.sockets):
            with socket.socket(fileno=os.dup(listening.fileno())) as queue:
                queue.setblocking(False)
                with contextlib.suppress(BlockingIOError):
                    while True:
                        accepted.append(queue.accept()[0])
                        accepted[-1].setblocking(False)
        return accepted

    def _stop_listening(self) -> None:
        for server in self._listening:
            server.close()
        self._listening.clear()

    async def close_silent_connections(self) -> None:
        """A loop: closes connections that have not sent a first request in time."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(SILENT_CHECK_S, self._listener.first_request_timeout_s))
            self._close_silent(loop.time())

    def _close_silent(self, now_s: float) -> None:
        heard = self.edge.in_flight.heard
        connections = set(self._server.connections)
        heard &= connections
        silent = connections - heard
        self._silent_since_s = {connection: self._silent_since_s.get(connection, now_s) for connection in silent}
        for connection, since_s in self._silent_since_s.items():
            if now_s - since_s > self._listener.first_request_timeout_s:
                connection.force_close()


@asynccontextmanager
async def open_http_server(edge: Edge, listener: Listener) -> AsyncIterator[HttpServer]:
    """A server that listens, for as long as the context lasts. Raises OSError when the address is taken, ConfigError
    for a certificate that cannot be used.
    """
    try:
        server = HttpServer(edge, listener)
    except OSError as error:
        raise ConfigError([f"the files of the certificate cannot be used: {error}"]) from error
    try:
        await server.start()
        yield server
    finally:
        await server.close()
