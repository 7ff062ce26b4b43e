"""Query parameters, in the contract's words when they are wrong."""

from __future__ import annotations

import re
from typing import Final

from aiohttp import web

from shared.errors import InvalidArgument
from shared.limits import U32_MAX
from shared.model import ReadLevel

_UNSIGNED: Final = re.compile(r"\+?[0-9]+", re.ASCII)


def _bad(name: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"Failed to deserialize query string: {name}: {reason}")


def _single(request: web.Request, name: str) -> str | None:
    given = request.rel_url.query.getall(name, [])
    if len(given) > 1:
        raise _bad(name, f"duplicate field `{name}`")
    return given[0] if given else None


def query_u32(request: web.Request, name: str) -> int | None:
    """The unsigned 32-bit parameter `name`, None when it is not given."""
    text = _single(request, name)
    if text is None:
        return None
    if not text:
        raise _bad(name, "cannot parse integer from empty string")
    if not _UNSIGNED.fullmatch(text):
        raise _bad(name, "invalid digit found in string")
    digits = text.lstrip("+").lstrip("0") or "0"
    if len(digits) > len(str(U32_MAX)) or int(digits) > U32_MAX:
        raise _bad(name, "number too large to fit in target type")
    return int(digits)


def query_read_level(request: web.Request, name: str = "read_level") -> ReadLevel:
    """The read level, `index_and_wal` when it is not given."""
    text = _single(request, name)
    if text is None:
        return ReadLevel.INDEX_AND_WAL
    try:
        return ReadLevel(text)
    except ValueError:
        known = ", ".join(f"`{level.value}`" for level in ReadLevel)
        raise _bad(name, f"unknown variant `{text}`, expected one of {known}") from None
