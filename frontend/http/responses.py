"""HTTP responses: whole before they are sent, and sent in one write; only long responses are sent chunk by chunk, as
they come from a query worker. Never compressed; JSON without a charset.
"""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from wsgiref.handlers import format_date_time

import orjson
from aiohttp import web

from shared.errors import PolychromeError
from shared.process.telemetry import get_logger

if TYPE_CHECKING:
    from shared.rpc.parts import Parts

JSON_TYPE: Final = "application/json"
EMPTY: Final = b"{}"

JOINED_BYTES_MAX: Final = 32 * 1024
"""A longer body is handed to the transport beside its head instead of being copied behind it."""

EncodedBody = bytes | memoryview
"""A body as it goes to the client."""

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
        has gone.
        """
        request, transport = self._ready()
        head, body = self._head(request.version), self.body
        if request.method == "HEAD":
            transport.write(head)
        elif len(body) <= JOINED_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        if request.protocol.writing_paused:
            await request.writer.drain()

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
    """An answer that is sent on part by part as they come: to HTTP/1.1 in chunks, to HTTP/1.0 until the connection is
    closed. When a part does not come, the connection is cut, and the client sees that its answer is not whole.
    """

    def __init__(self, parts: Parts) -> None:
        super().__init__()
        self._parts = parts
        self._chunked = True

    async def send(self, request: web.BaseRequest) -> int:
        """Sends it, for who made it and not for aiohttp: so the request is under way until the last part has left. The
        status that becomes of it: 499 when the client has gone, 500 when a part did not come.
        """
        self._chunked = request.version[1] > 0
        if not self._chunked:
            self.force_close()
        await super().prepare(request)
        status = 499
        try:
            status = await self._send(*self._ready())
        except PolychromeError as error:
            log.warning("cut", code=error.code, message=error.message)
            status = 500
        except ConnectionError as error:
            log.debug("gone", message=str(error))
        finally:
            self._parts.close()
            if status != self._status and request.transport is not None:
                request.transport.abort()
        return status

    async def _send(self, request: web.BaseRequest, transport: asyncio.Transport) -> int:
        transport.write(self._head(request.version))
        async for part in self._parts:
            transport.writelines(_chunk(part) if self._chunked else (part,))
            if request.protocol.writing_paused:
                await request.writer.drain()
            if transport.is_closing():
                raise ConnectionResetError("the client has gone")
        if self._chunked:
            transport.write(_LAST_CHUNK)
        return self._status

    async def prepare(self, request: web.BaseRequest) -> None:
        """It has been sent."""

    async def write_eof(self, data: bytes = b"") -> None:
        """The same."""

    def _length(self) -> str:
        return "Transfer-Encoding: chunked\r\n" if self._chunked else ""


def _chunk(part: memoryview) -> tuple[bytes, memoryview, bytes]:
    return f"{len(part):x}\r\n".encode(), part, b"\r\n"


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


def encoded_response(body: EncodedBody, status: int = 200) -> HttpResponse:
    """A response with JSON that has been encoded already."""
    return HttpResponse(body, status)


def empty_response(status: int = 200) -> HttpResponse:
    """A response with the body `{}`: clients parse the body of every 2xx response, so there must be one."""
    return HttpResponse(EMPTY, status)
