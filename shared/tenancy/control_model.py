"""A control record as bytes: its envelope, its checksum, the key of its object. Pure; `control_records` keeps them."""

from __future__ import annotations

import enum
import hashlib
from typing import Annotated, Final
from urllib.parse import quote

import msgspec

from shared.errors import Corrupt
from shared.objects.keys import control_key, parse_control_key

FORMAT: Final = 1
QUOTED_LENGTH_MAX: Final = 300
"""Longer names go by their hash: keys of objects are bounded, and names are in the records."""
RECORD_BYTES_MAX: Final = 256 * 1024


NO_BODY: Final = b"null"


def content_of(body: msgspec.Raw) -> bytes | None:
    """The record as JSON; None of one that was deleted."""
    content = bytes(body)
    return None if content == NO_BODY else content


class ControlKind(enum.StrEnum):
    """The subject of a control record."""

    KEYS = "keys"
    PLANS = "plans"
    TENANTS = "tenants"
    ERASURES = "erasures"


class Envelope(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a record. `follows` is the `sha256` of the version before it, empty for the first; `body` is NO_BODY
    when this version deletes the record. `sha256` is that of the bytes with an empty one in its place.
    """

    format: int = FORMAT
    kind: ControlKind
    name: str
    version: Annotated[int, msgspec.Meta(ge=1, lt=10**10)]
    follows: str
    written_s: float
    writer: str
    body: msgspec.Raw
    sha256: str = ""

    def encode(self) -> bytes:
        """The bytes of the record's object, checksum included."""
        blank = msgspec.json.encode(msgspec.structs.replace(self, sha256=""))
        digest = hashlib.sha256(blank).hexdigest()
        return blank.removesuffix(b'"sha256":""}') + f'"sha256":"{digest}"}}'.encode()

    @property
    def content(self) -> bytes | None:
        """The record as JSON; None of one that was deleted."""
        return content_of(self.body)

    @property
    def key(self) -> str:
        """The key of the record's object."""
        return object_key(self.kind, self.name, self.version)


_ENVELOPE: Final = msgspec.json.Decoder(Envelope)


def decode_envelope(data: bytes, key: str) -> Envelope:
    """The version with these bytes, found under this key. Raises Corrupt when they are damaged, or of another key."""
    if len(data) > RECORD_BYTES_MAX:
        raise Corrupt(f"{key} is longer than a control record can be", key)
    try:
        envelope = _ENVELOPE.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"{key} is no control record: {error}", key) from error
    if envelope.format != FORMAT:
        raise Corrupt(f"{key} is a control record of format {envelope.format}; this build reads {FORMAT}", key)
    if envelope.encode() != data:
        raise Corrupt(f"{key} is damaged: its checksum is another one", key)
    if envelope.key != key:
        raise Corrupt(f"{key} holds {envelope.key}", key)
    return envelope


def place_of(name: str) -> str:
    """A record's name as a part of an object's key, and as its field in Redis: percent-encoded, or (with a name too
    long for that) a hash of it.
    """
    quoted = quote(name, safe="").replace("~", "%7E")
    if len(quoted) > QUOTED_LENGTH_MAX or not quoted:
        return f"={hashlib.sha256(name.encode()).hexdigest()}"  # no name is quoted to what begins with this sign
    return f"%2E{quoted[1:]}" if quoted.startswith(".") else quoted


def object_key(kind: ControlKind, name: str, version: int) -> str:
    """The key of the object of a version; keys of one record sort by version."""
    return control_key(kind, place_of(name), version)


def parse_key(key: str) -> tuple[ControlKind, str, int] | None:
    """(kind, place, version) of an object's key; None for any other key."""
    found = parse_control_key(key)
    return (ControlKind(found[0]), found[1], found[2]) if found and found[0] in set(ControlKind) else None
