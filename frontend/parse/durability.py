"""Durability classes: where a write has to be before it is acknowledged (docs/wire.md, section 23)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from frontend.http.errors import DURABILITY_HEADER
from frontend.http.request import Request
from frontend.http.responses import HttpResponse
from shared.errors import InvalidArgument

CHOICES: Final = "disk, bucket, or replicas:n with n from 1 to 9"
_CLASS: Final = re.compile(r"disk|bucket|replicas:([1-9])", re.ASCII)


@dataclass(frozen=True, slots=True)
class Durability:
    """A durability class. Every class includes the disk of the log's server; `replicas` is how many replicas of it have
    to have the write as well, `in_bucket` whether the bucket has to.
    """

    replicas: int = 0
    in_bucket: bool = False

    def __str__(self) -> str:
        if self.in_bucket:
            return "bucket"
        return f"replicas:{self.replicas}" if self.replicas else "disk"


DISK: Final = Durability()


def parse_durability(text: str) -> Durability:
    """The class of this name. Raises ValueError that names the choices."""
    found = _CLASS.fullmatch(text)
    if found is None:
        raise ValueError(f"expected {CHOICES}")
    return Durability(int(found[1] or 0), text == "bucket")


def requested_durability(request: Request, member: str | None, default: Durability) -> Durability:
    """The class that a write asks for in its header or in the member `durability` of its body, else the default. Raises
    InvalidArgument for an unknown class, and for two that differ.
    """
    given = {*request.headers.getall(DURABILITY_HEADER, []), *([] if member is None else [member])}
    if not given:
        return default
    if len(given) > 1:
        raise InvalidArgument(f"durability: {' and '.join(sorted(given))} are asked for at once")
    (text,) = given
    try:
        return parse_durability(text)
    except ValueError as error:
        raise InvalidArgument(f"durability: {error}, got '{text}'") from None


def named(response: HttpResponse, durability: Durability) -> HttpResponse:
    """The answer to a write that has got to this class, which its header says."""
    response.add(DURABILITY_HEADER, str(durability))
    return response
