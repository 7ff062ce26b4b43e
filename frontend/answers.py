"""Answers: complete before they are sent, and sent in one write. Never compressed; JSON without a charset."""

from __future__ import annotations

import time
from http import HTTPStatus
from typing import Any, Final
from wsgiref.handlers import format_date_time

import orjson
from aiohttp import web

JSON_TYPE: Final = "application/json"
EMPTY: Final = b"{}"

JOINED_BYTES_MAX: Final = 32 * 1024
"""A longer body is handed to the transport beside its head instead of being copied behind it."""

_REASONS: Final = {status.value: status.phrase for status in HTTPStatus}


class Answer(web.StreamResponse):
    """An answer whose body is there as a whole.

    aiohttp's own responses can be changed until their last byte, and pay for it with a dictionary of headers and
    several steps of preparation. Here the head is text, and head and body leave together.
    """

    def __init__(self, body: bytes | memoryview = b"", status: int = 200, content_type: str | None = JSON_TYPE) -> None:
        super().__init__(status=status)
        self.body = body
        self._lines = "" if content_type is None else f"Content-Type: {content_type}\r\n"
        self._request: web.BaseRequest | None = None

    @property
    def head_lines(self) -> str:
        """The header lines so far; what the connection and the length need comes when it is sent."""
        return self._lines

    def add(self, name: str, value: str) -> None:
        """Adds a header. The value has to be free of line ends, whoever it comes from."""
        self._lines += f"{name}: {value}\r\n"

    async def prepare(self, request: web.BaseRequest) -> None:
        self._request = request
        if self._keep_alive is None:
            self._keep_alive = request.keep_alive

    async def write_eof(self, data: bytes = b"") -> None:
        """Sends it; waits while the client is slow to take it. Raises ConnectionError for a client that has gone."""
        request, self._request = self._request, None
        assert request is not None
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has gone")
        head, body = self._head(request.version), self.body
        if request.method == "HEAD":
            transport.write(head)
        elif len(body) <= JOINED_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        if request.protocol.writing_paused:
            await request.writer.drain()

    def _head(self, version: tuple[int, int]) -> bytes:
        status = self._status
        if version[1] == 0:
            connection = "Connection: keep-alive\r\n" if self._keep_alive else ""
        else:
            connection = "" if self._keep_alive else "Connection: close\r\n"
        return (
            f"HTTP/{version[0]}.{version[1]} {status} {_REASONS[status]}\r\n"
            f"{self._lines}{connection}Content-Length: {len(self.body)}\r\nDate: {_date()}\r\n\r\n"
        ).encode()


class _Today:
    """The date as text, which changes once a second."""

    second = 0
    text = ""


def _date() -> str:
    now = int(time.time())
    if now != _Today.second:
        _Today.second, _Today.text = now, format_date_time(now)
    return _Today.text


def answer(value: Any, status: int = 200) -> Answer:
    """`value` as JSON; numpy arrays are understood, non-finite floats become null."""
    return Answer(orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status)


def answer_bytes(body: bytes | memoryview, status: int = 200) -> Answer:
    """JSON that has been encoded already."""
    return Answer(body, status)


def nothing_to_say(status: int = 200) -> Answer:
    """`{}`: the clients parse every 2xx body, so there must be one."""
    return Answer(EMPTY, status)
