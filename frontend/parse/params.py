"""Query parameters of a request's URL, and the messages for wrong ones (docs/wire.md, section 2)."""

from __future__ import annotations

import re
from typing import Final

from frontend.http.request import Request
from shared.errors import InvalidArgument
from shared.limits import U32_MAX
from shared.records.model import ReadLevel

_UNSIGNED: Final = re.compile(r"\+?[0-9]+", re.ASCII)


def _bad(name: str, reason: str) -> InvalidArgument:
    return InvalidArgument(f"Failed to deserialize query string: {name}: {reason}")


def _repeated(name: str) -> InvalidArgument:
    return InvalidArgument(f"Failed to deserialize query string: duplicate field `{name}`")


def query_page(request: Request) -> tuple[int | None, int]:
    """The parameters `limit` (None: no limit) and `offset`. Raises InvalidArgument for the first bad one in the query
    string.
    """
    given: dict[str, int] = {}
    for name, text in request.rel_url.query.items():
        if name in ("limit", "offset"):
            if name in given:
                raise _repeated(name)
            given[name] = _u32(name, text)
    return given.get("limit"), given.get("offset", 0)


def _u32(name: str, text: str) -> int:
    if not text:
        raise _bad(name, "cannot parse integer from empty string")
    if not _UNSIGNED.fullmatch(text):
        raise _bad(name, "invalid digit found in string")
    digits = text.lstrip("+").lstrip("0") or "0"
    if len(digits) > len(str(U32_MAX)) or int(digits) > U32_MAX:
        raise _bad(name, "number too large to fit in target type")
    return int(digits)


def query_read_level(request: Request, name: str = "read_level") -> ReadLevel:
    """The parameter `name` as a read level, `index_and_wal` when it is not given. Raises InvalidArgument."""
    levels = [_level(name, text) for text in request.rel_url.query.getall(name, [])]
    if len(levels) > 1:
        raise _repeated(name)
    return levels[0] if levels else ReadLevel.INDEX_AND_WAL


def _level(name: str, text: str) -> ReadLevel:
    try:
        return ReadLevel(text)
    except ValueError:
        known = ", ".join(f"`{level.value}`" for level in ReadLevel)
        raise _bad(name, f"unknown variant `{text}`, expected one of {known}") from None
