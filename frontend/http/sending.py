"""Waiting for clients to take what was written to their connections, and when not to wait any longer.

The transport keeps what a client has not taken yet. A client that takes nothing would keep its answer, a query worker's
work on it and a share of the memory budget for as long as it likes; so it is cut off. What counts is that it makes
progress, not how long the whole of it takes.
"""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from aiohttp import web
from prometheus_client import Counter

from frontend.http.request import Request
from frontend.http.shown_path import shown_path
from shared.process.telemetry import get_logger

PROGRESS_BYTES_MIN: Final = 64 * 1024
"""A client that takes fewer bytes than this within the send timeout takes too little."""

SLOW_CLIENTS: Final = Counter(
    "polychrome_frontend_slow_clients_total", "Connections cut because their clients took next to nothing of an answer."
)

log = get_logger(__name__)


class WatchedConnection(web.RequestHandler):
    """A connection to a client. `on_lost` is called when it is closed, whichever side did that."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_lost: Callable[[], None] | None = None

    def connection_lost(self, exc: BaseException | None) -> None:
        """Called by the event loop."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()


@contextmanager
def client_watched(request: web.BaseRequest, on_lost: Callable[[], None]) -> Iterator[None]:
    """Calls `on_lost` if the connection to the client is lost within the context: nobody else would notice while
    nothing is written to it.
    """
    connection = request.protocol
    assert isinstance(connection, WatchedConnection)
    connection.on_lost = on_lost
    try:
        yield
    finally:
        connection.on_lost = None


async def client_has_taken(request: web.BaseRequest) -> None:
    """Waits until little of what was written to the client is left in this process. Raises ConnectionError when the
    client has gone, or takes too little within `Request.send_timeout_s`; then its connection is cut.
    """
    if not request.protocol.writing_paused:
        return
    assert isinstance(request, Request)
    # Not `asyncio.timeout`: the library goes on using a future that its own waiting was cancelled with.
    drained = asyncio.ensure_future(request.writer.drain())
    try:
        while (left := _bytes_left(request)) is not None:
            done, _ = await asyncio.wait([drained], timeout=request.send_timeout_s)
            if done:
                drained.result()
                return
            now = _bytes_left(request)
            if now is not None and left - now < PROGRESS_BYTES_MIN:
                _cut(request, now)
        raise ConnectionResetError("the client has gone")
    finally:
        if not drained.cancel() and not drained.cancelled():
            drained.exception()  # counts as heard: the client has gone in the same moment


def _bytes_left(request: web.BaseRequest) -> int | None:
    """Bytes that were written and have not reached the client's machine, None when the connection is closed."""
    transport = request.transport
    if transport is None or transport.is_closing():
        return None
    return transport.get_write_buffer_size() + _bytes_in_kernel(transport)


def _bytes_in_kernel(transport: asyncio.Transport) -> int:
    """Bytes that the kernel has still to send. Up to a third of its buffer, which may be megabytes, goes before it
    takes more from this process; so without this a client that is merely slow would seem to take nothing for that long.
    """
    if not sys.platform.startswith("linux"):
        return 0
    connection = transport.get_extra_info("socket")
    return int.from_bytes(fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder)


def _cut(request: web.BaseRequest, left: int) -> None:
    SLOW_CLIENTS.inc()
    log.info("slow_client_cut", path=shown_path(request.path), bytes_left=left)
    if request.transport is not None:
        request.transport.abort()
    raise ConnectionAbortedError("the client takes its answer too slowly")
