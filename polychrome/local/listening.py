"""The sockets on which the HTTP API listens, held by the supervisor for all frontends.

Connections wait in a listening socket's queue until they are accepted. A socket that a frontend opened itself takes its
queue along when the frontend ends: those connections are reset, and until the next frontend listens all are refused. So
the supervisor opens the sockets and frontends inherit them: while one frontend stops, the others take what comes, and
what comes while there is none waits for the next.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import time
from collections.abc import Sequence
from typing import Final

LISTEN_BACKLOG: Final = 1024
"""Connections that may wait to be accepted."""

TAKEN_WAIT_S: Final = 0.5
"""Longest wait for an address that is taken, in seconds: the system may be closing the sockets of a killed cluster."""

_POLL_S: Final = 0.02


class AddressError(Exception):
    """The API cannot listen on the address that was given; the message says why."""


class ListeningSockets:
    """Listening sockets on all addresses of a host, on one port."""

    def __init__(self, sockets: Sequence[socket.socket]) -> None:
        self._sockets = sockets
        self.port: int = sockets[0].getsockname()[1]

    @property
    def fds(self) -> tuple[int, ...]:
        """The file descriptors, for processes to inherit."""
        return tuple(each.fileno() for each in self._sockets)

    def close(self) -> None:
        """Closes this process's descriptors: when the frontends have closed theirs, connections are refused."""
        for each in self._sockets:
            each.close()


def listen(host: str, port: int) -> ListeningSockets:
    """Listens on all addresses of `host` (empty: all of this machine), port 0: a free one. Raises AddressError."""
    deadline_s = time.monotonic() + TAKEN_WAIT_S
    while True:
        try:
            return ListeningSockets(_open_all(host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() > deadline_s:
                hint = "; --port takes another" if error.errno == errno.EADDRINUSE else ""
                raise AddressError(f"{host} port {port}: {error.strerror}{hint}") from error
        time.sleep(_POLL_S)


def _open_all(host: str, port: int) -> list[socket.socket]:
    found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as stack:
        opened: list[socket.socket] = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            wanted = opened[0].getsockname()[1] if opened else port
            opened.append(stack.enter_context(socket.socket(family, kind, protocol)))
            _listen(opened[-1], (address[0], wanted, *address[2:]))
        stack.pop_all()
        return opened


def _listen(opened: socket.socket, address: tuple[object, ...]) -> None:
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if opened.family == socket.AF_INET6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    opened.setblocking(False)
    opened.bind(address)
    opened.listen(LISTEN_BACKLOG)
