"""HTTP responses: whole before they are sent, and sent in one write; only long responses are sent chunk by chunk, as
they come from a query worker and as fast as the client takes them. Never compressed; JSON without a charset.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any, Final
from wsgiref.handlers import format_date_time

import orjson
from aiohttp import web

from frontend.http.sending import client_has_taken, client_watched
from shared.errors import PolychromeError
from shared.process.telemetry import get_logger
from shared.rpc.chunks import ChunkStream

JSON_TYPE: Final = "application/json"
EMPTY: Final = b"{}"

JOINED_BYTES_MAX: Final = 32 * 1024
"""A longer body is handed to the transport beside its head instead of being copied behind it."""

EncodedBody = bytes | memoryview
"""A body as it goes to the client."""

Body = EncodedBody | ChunkStream
"""A body, of which the rest may be still to come."""

_LAST_CHUNK: Final = b"0\r\n\r\n"

log = get_logger(__name__)

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class HttpResponse(web.StreamResponse):
    """A response whose body is there as a whole.

    aiohttp's own responses can be changed until their last byte, and pay for it with a dictionary of headers and
    several steps of preparation. Here the head is text, and head and body leave together.
    """

    def __init__(self, body: EncodedBody = b"", status: int = 200, content_type: str | None = JSON_TYPE) -> None:
        super().__init__(status=status)
        self.body = body
        self._lines = "" if content_type is None else f"Content-Type: {content_type}\r\n"
        self._request: web.BaseRequest | None = None

    @property
    def bytes_out(self) -> int:
        """Length of the body, as far as it was sent when the request ended."""
        return len(self.body)

    def add(self, name: str, value: str) -> None:
        """Adds a header. The value must not have line ends, whoever it comes from."""
        self._lines += f"{name}: {value}\r\n"

    async def prepare(self, request: web.BaseRequest) -> None:
        """Called by aiohttp before the response is sent."""
        self._request = request
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive

    async def write_eof(self, data: bytes = b"") -> None:
        """Sends head and body; waits while the client is slow to take them. Raises ConnectionError for a client that
        has gone, or takes next to nothing.
        """
        request, transport = self._ready()
        head, body = self._head(request.version), self.body
        if request.method == "HEAD":
            transport.write(head)
        elif len(body) <= JOINED_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        await client_has_taken(request)

    def _ready(self) -> tuple[web.BaseRequest, asyncio.Transport]:
        """The request that is answered, and the connection to its client. Raises ConnectionError if that is closed."""
        request, self._request = self._request, None
        assert request is not None
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        return request, transport

    def _length(self) -> str:
        """The header that says where the body ends."""
        return f"Content-Length: {len(self.body)}\r\n"

    def _head(self, version: tuple[int, int]) -> bytes:
        status = self._status
        if version[1] == 0:
            connection = "Connection: keep-alive\r\n" if self._keep_alive else ""
        else:
            connection = "" if self._keep_alive else "Connection: close\r\n"
        return (
            f"HTTP/{version[0]}.{version[1]} {status} {_REASONS[status]}\r\n"
            f"{self._lines}{connection}{self._length()}Date: {_date()}\r\n\r\n"
        ).encode()


class StreamedResponse(HttpResponse):
    """A response that is sent on chunk by chunk as a query worker sends it: to HTTP/1.1 as a chunked body, to HTTP/1.0
    until the connection is closed. The next chunk is asked for when the client has taken the one before. When the rest
    does not come, the connection is cut, and the client sees that its answer is not whole.
    """

    def __init__(self, chunks: ChunkStream, status: int = 200) -> None:
        """Takes `chunks` over, and closes them when they have been sent or the client has gone."""
        super().__init__(status=status)
        self._chunks = chunks
        self._is_chunked = True
        self._sent = 0

    @property
    def bytes_out(self) -> int:
        """Length of the body, as far as it was sent when the request ended."""
        return self._sent

    async def send(self, request: web.BaseRequest) -> int:
        """Sends the response. Called while the request is still in flight, and not by aiohttp; so it is in flight until
        the last chunk was sent. Returns the status for logs and metrics: 499 when the client has gone or was too slow,
        500 when the rest of the answer did not come.
        """
        self._is_chunked = request.version[1] > 0
        if not self._is_chunked:
            self.force_close()
        await super().prepare(request)
        status = 499
        try:
            status = await self._send(*self._ready())
        except PolychromeError as error:
            log.warning("answer_cut", code=error.code, message=error.message)
            status = 500
        except ConnectionError as error:
            log.debug("client_gone", message=str(error))
        finally:
            self._chunks.close()
            if status != self._status and request.transport is not None:
                request.transport.abort()
        return status

    async def _send(self, request: web.BaseRequest, transport: asyncio.Transport) -> int:
        transport.write(self._head(request.version))
        with client_watched(request, self._client_gone):
            async for chunk in self._chunks:
                self._sent += len(chunk)
                _write(transport, _framed(chunk) if self._is_chunked else (chunk,))
                await client_has_taken(request)
        if self._is_chunked:
            _write(transport, (_LAST_CHUNK,))
        return self._status

    def _client_gone(self) -> None:
        """Ends the waiting for the next chunk: it may be long in coming, and holds memory on either side."""
        self._chunks.end(ConnectionResetError("the client has gone"))

    async def prepare(self, request: web.BaseRequest) -> None:
        """Called by aiohttp when `send` has sent everything."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Called by aiohttp when `send` has sent everything."""

    def _length(self) -> str:
        return "Transfer-Encoding: chunked\r\n" if self._is_chunked else ""


def _write(transport: asyncio.Transport, buffers: Sequence[EncodedBody]) -> None:
    """Writes to a client that may have gone since the last time, and raises ConnectionError if it has. Transports of
    uvloop raise RuntimeError then.
    """
    if transport.is_closing():
        raise ConnectionResetError("the client has gone")
    transport.writelines(buffers)


def _framed(chunk: memoryview) -> tuple[bytes, memoryview, bytes]:
    """A chunk of a chunked body, RFC 9112, 7.1."""
    return f"{len(chunk):x}\r\n".encode(), chunk, b"\r\n"


class _DateCache:
    """The value of the Date header, formatted anew once a second."""

    second = 0
    text = ""


def _date() -> str:
    now = int(time.time())
    if now != _DateCache.second:
        _DateCache.second, _DateCache.text = now, format_date_time(now)
    return _DateCache.text


def json_response(value: Any, status: int = 200) -> HttpResponse:
    """A response with `value` as JSON. It may have numpy arrays; floats that are not finite become null."""
    return HttpResponse(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status)


def encoded_response(body: Body, status: int = 200) -> HttpResponse:
    """A response with JSON that has been encoded already. Takes over a body that comes in chunks."""
    return StreamedResponse(body, status) if isinstance(body, ChunkStream) else HttpResponse(body, status)


def empty_response(status: int = 200) -> HttpResponse:
    """A response with the body `{}`: clients parse the body of every 2xx response, so there must be one."""
    return HttpResponse(EMPTY, status)
