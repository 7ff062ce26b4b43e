"""Credentials: from a request's headers to what it says of its sender. Pure.

The official clients send one of three headers: `Authorization: Bearer <key or token>`, `x-chroma-token: <key or
token>`, `Authorization: Basic <base64 of name:password>`. A credential in the URL is none: URLs are logged.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from multidict import istr

from shared.errors import Unauthenticated
from shared.tenancy.api_keys import id_of_key

AUTHORIZATION: Final = istr("Authorization")
CHROMA_TOKEN: Final = istr("x-chroma-token")  # a header's name
CREDENTIAL_LENGTH_MAX: Final = 16 * 1024
_TOKEN: Final = re.compile(r"[!-~]+", re.ASCII)


class Headers(Protocol):
    """Headers of a request, of which one may come several times; names in any case."""

    def getall(self, name: str, default: list[str], /) -> list[str]:
        """All values of a header, `default` when there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Token:
    """An API key or a JWT."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Password:
    """A user's name and password."""

    name: str
    password: str = field(repr=False)


def credential_of(authorization: Sequence[str], chroma_token: Sequence[str]) -> Token | Password:
    """The credential in the values of the two headers, of which there may be several. Raises Unauthenticated when there
    is none, when it is malformed, or when there are two that differ.
    """
    found = [_authorized(value) for value in authorization] + [_token(value.strip()) for value in chroma_token]
    if not found:
        raise Unauthenticated("Authentication is required: send an API key as bearer token or as x-chroma-token")
    if any(other != found[0] for other in found[1:]):
        raise Unauthenticated("The request has credentials that contradict each other")
    return found[0]


def claimed_key_id(headers: Headers) -> str | None:
    """The id of the API key in a request's headers, whether the key holds or not; None of any other credential."""
    try:
        credential = credential_of(headers.getall(AUTHORIZATION, []), headers.getall(CHROMA_TOKEN, []))
    except Unauthenticated:
        return None
    return id_of_key(credential.text) if isinstance(credential, Token) else None


def _authorized(value: str) -> Token | Password:
    scheme, _, rest = value.strip().partition(" ")
    match scheme.lower():
        case "bearer":
            return _token(rest.strip())
        case "basic":
            return _password(rest.strip())
    raise Unauthenticated("The authorization scheme is neither Bearer nor Basic")


def _token(text: str) -> Token:
    if len(text) > CREDENTIAL_LENGTH_MAX or not _TOKEN.fullmatch(text):
        raise Unauthenticated("The token is malformed")
    return Token(text)


def _password(encoded: str) -> Password:
    malformed = Unauthenticated("The name and password are malformed")
    if len(encoded) > CREDENTIAL_LENGTH_MAX:
        raise malformed
    try:
        name, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except ValueError:  # not base64, not even ASCII, or not UTF-8
        raise malformed from None
    if not colon or not name:
        raise malformed
    return Password(name, password)
