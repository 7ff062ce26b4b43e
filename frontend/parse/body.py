"""Request bodies: from bytes on the wire to a JSON tree.

The order of the checks is that of docs/wire.md, section 2: content type (415), size (413), syntax (400), members that
are repeated in one object (422), shape (422; `frontend.parse.shapes`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

import aiohttp
from aiohttp import web

from frontend.concurrency import IN_THREAD_BYTES_MIN, off_loop
from frontend.http.arrival import Arrival
from frontend.http.errors import BodyTimeout, BrokenBody
from frontend.http.request import Request
from frontend.parse.json_counts import check_counts
from frontend.parse.json_text import parse
from frontend.parse.shapes import require_object
from frontend.request_limits import RequestLimits
from shared.errors import BodyTooLarge, UnsupportedMediaType

Body = TypeVar("Body")

BROKEN: Final = (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, web.RequestPayloadError, OSError)
"""The errors of reading a body when the client closes the connection or breaks the chunked encoding."""

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
"""The interim answer to a client that waits for permission to send its body."""

_JSON_TYPE: Final = re.compile(r"application/(?:json|[^;/\s]+\+json)\s*(?:;.*)?", re.ASCII | re.IGNORECASE | re.DOTALL)


async def read_json(request: Request, rows: str | None = None) -> Any:
    """The body as a tree of dicts, lists, strings, numbers, booleans and None. Rows of numbers in the member `rows` may
    come as NumberRows.

    Integers beyond 64 bits arrive as floats. Raises UnsupportedMediaType, BodyTooLarge, BodyTimeout, BrokenBody,
    LimitExceeded, MalformedBody, and WrongShape for a repeated member.
    """
    check_content_type(request)
    data = await read_bytes(request)
    if len(data) >= IN_THREAD_BYTES_MIN:
        await request.bodies.parsed.acquire(request.protocol, len(data), tenant=request.tenant)
        return await off_loop(None, _parse_counted, data, rows, request.limits)
    return _parse_counted(data, rows, request.limits)


def _parse_counted(data: bytes, rows: str | None, limits: RequestLimits) -> Any:
    return parse(data, rows, in_pieces=check_counts(data, limits))


async def parse_body(request: Request, parse_object: Callable[[dict[str, Any]], Body], rows: str | None = None) -> Body:
    """The result of `parse_object` for the body, which has to be an object; `rows` as for `read_json`. Raises what
    `read_json` and `parse_object` do, and WrongShape.
    """
    tree = require_object(await read_json(request, rows))
    return await off_loop(request.body_bytes, parse_object, tree)


def check_content_type(request: Request) -> None:
    """Raises UnsupportedMediaType unless the body is declared to be JSON, or nothing is declared."""
    declared = request.headers.get("Content-Type")
    if declared is not None and not _JSON_TYPE.fullmatch(declared.strip()):
        raise UnsupportedMediaType("Expected request with `Content-Type: application/json`")


async def read_bytes(request: Request) -> bytes:
    """The body as sent: chunks joined, nothing decompressed. Stops reading at the limit. Raises BodyTooLarge,
    BodyTimeout, BrokenBody.
    """
    if request.content.is_eof():  # it came along with the headers, or there is none
        data = request.content.read_nowait(-1)
        if len(data) > request.bodies.bytes_max:
            raise _too_large()
    else:
        data = await _receive(request)
    request.body_bytes = len(data)
    return data


async def _receive(request: Request) -> bytes:
    bytes_max = request.bodies.bytes_max
    if request.content_length is not None and request.content_length > bytes_max:
        raise _too_large()
    if request.transport is not None and request.headers.get("Expect", "").lower() == "100-continue":
        request.transport.write(CONTINUE)
    now_s = asyncio.get_running_loop().time
    bodies = request.bodies
    arrival = Arrival(now_s(), now_s() + bodies.timeout_s, bodies.rate_min)
    chunks: list[bytes] = []
    size = 0
    try:
        while chunk := await _next_chunk(request, arrival):
            size += len(chunk)
            if size > bytes_max:
                raise _too_large()
            if size >= IN_THREAD_BYTES_MIN:
                before_s = now_s()
                async with _until(arrival.ends_s):
                    length = request.content_length
                    await bodies.receiving.acquire(request.protocol, len(chunk), length, request.tenant)
                arrival.resumed(now_s() - before_s)
            chunks.append(chunk)
    except BROKEN as error:
        raise BrokenBody("Failed to buffer the request body: the connection or its framing broke") from error
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def _next_chunk(request: Request, arrival: Arrival) -> bytes:
    """The bytes of the body since the last chunk, empty at its end. Raises BodyTimeout when they come too slowly."""
    loop = asyncio.get_running_loop()
    while True:
        try:
            async with asyncio.timeout_at(arrival.due_s):
                chunk = await request.content.readany()
        except TimeoutError:
            chunk = None
        arrival.came(len(chunk or b""))
        if chunk == b"":
            return chunk
        if arrival.too_slow(loop.time()):
            raise _too_slow()
        if chunk is not None:
            return chunk


@asynccontextmanager
async def _until(deadline_s: float) -> AsyncIterator[None]:
    """Raises BodyTimeout at the deadline, a time of the event loop."""
    try:
        async with asyncio.timeout_at(deadline_s):
            yield
    except TimeoutError:
        raise _too_slow() from None


def _too_slow() -> BodyTimeout:
    return BodyTimeout("The request body took too long to arrive")


def _too_large() -> BodyTooLarge:
    return BodyTooLarge("Failed to buffer the request body: length limit exceeded")
