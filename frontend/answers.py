"""Success answers: JSON without a charset, never compressed."""

from __future__ import annotations

from typing import Any, Final

import orjson
from aiohttp import web

JSON_TYPE: Final = "application/json"
EMPTY: Final = b"{}"


def answer(value: Any, status: int = 200) -> web.Response:
    """`value` as JSON; numpy arrays are understood, non-finite floats become null."""
    return web.Response(
        body=orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY), status=status, content_type=JSON_TYPE
    )


def answer_bytes(body: bytes, status: int = 200) -> web.Response:
    """JSON that has been encoded already."""
    return web.Response(body=body, status=status, content_type=JSON_TYPE)


def nothing_to_say(status: int = 200) -> web.Response:
    """`{}`: the clients parse every 2xx body, so there must be one."""
    return web.Response(body=EMPTY, status=status, content_type=JSON_TYPE)
