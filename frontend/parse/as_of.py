"""`as_of`: the position of the log, or the time, as of which a request reads the past (docs/wire.md, section 22)."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from frontend.http.request import Request
from frontend.parse.metadata_values import I64_MAX
from shared.errors import InvalidArgument
from shared.records.model import ReadLevel

GivenAsOf = Annotated[int, msgspec.Meta(ge=0, le=I64_MAX)] | str | None
"""The member of a body: a position, or a time as RFC 3339 writes it."""

_RFC_3339: Final = re.compile(r"\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_DIGITS: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
_EPOCH: Final = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclass(frozen=True, slots=True)
class AsOf:
    """A point in a collection's past: a position of its log, or (`position` None) a time in ms since the epoch.
    `given` is how the client wrote it.
    """

    given: str
    position: int | None = None
    time_ms: int = 0


def read_as_of(given: int | str | None) -> AsOf | None:
    """The point that a body names, None when it names none. Raises InvalidArgument for a text that is no time."""
    if given is None:
        return None
    if isinstance(given, int):
        return AsOf(str(given), given)
    return AsOf(given, None, _milliseconds(given))


def check_level(as_of: AsOf | None, level: ReadLevel) -> None:
    """Raises InvalidArgument for a read of the past that shall not see the log."""
    if as_of is not None and level is ReadLevel.INDEX_ONLY:
        raise InvalidArgument("as_of: what was compacted at a time is not known; take another read_level")


def query_as_of(request: Request) -> AsOf | None:
    """The point that the query parameter `as_of` names, None without one. Raises InvalidArgument."""
    given = request.rel_url.query.getall("as_of", [])
    if len(given) > 1:
        raise InvalidArgument("Failed to deserialize query string: duplicate field `as_of`")
    if not given:
        return None
    if _DIGITS.fullmatch(given[0]) and int(given[0]) <= I64_MAX:
        return read_as_of(int(given[0]))
    return read_as_of(given[0])


def _milliseconds(text: str) -> int:
    """Milliseconds since the epoch, cut. Raises InvalidArgument."""
    if _RFC_3339.fullmatch(text):
        try:
            moment = datetime.datetime.fromisoformat(_with_microseconds(text.upper()))
        except ValueError:
            pass
        else:
            return (moment - _EPOCH) // datetime.timedelta(milliseconds=1)
    raise InvalidArgument(
        f"as_of: '{text}' is neither a position of the log nor a time such as 2026-11-30T18:35:00Z (RFC 3339)"
    )


def _with_microseconds(text: str) -> str:
    """The time with at most six digits behind the point, which is all that `datetime` reads."""
    return re.sub(r"(\.\d{6})\d+", r"\1", text)
