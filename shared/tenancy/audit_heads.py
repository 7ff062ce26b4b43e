"""The heads of all audit logs: where each chain ends and, once old parts are deleted, where it begins.

A chain cannot show that its newest parts are missing, nor one whose oldest parts were deleted by right that it is
whole. So the log service writes down once a minute the last part that it sees of each chain (`last`, `sha256`), and,
before it deletes the parts of old days, which part will be the first one (`first`) and the hash that it follows
(`before`). Heads have numbers without gaps, and each names the hash of the ones before: heads that are missing, or were
replaced, are seen like parts are. Nothing of what they say is ever taken back: a `last` never gets less.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

import msgspec

from shared.errors import Corrupt
from shared.objects.keys import audit_heads_key
from shared.tenancy.audit import Count, Moment
from shared.tenancy.audit_chain import NOTHING, Digest

FORMAT: Final = 1
HEADS_KEPT: Final = 20
"""Heads that stay in the bucket: the newest ones say all that earlier ones do."""
HEADS_BYTES_MAX: Final = 64 * 1024 * 1024


class Head(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The ends of a chain. `first` is the number of the oldest part that has to be there, `before` the hash that it
    follows; `last` is the number of the newest part that was seen, `sha256` the hash of its last line, `day` its day.
    `closed`: the process has said that nothing follows.
    """

    first: Count = 0
    before: Digest = NOTHING
    last: Count
    sha256: Digest
    day: str
    closed: bool


class Heads(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The heads of all chains by their names. `oldest` is the number of the oldest heads that are kept, `follows` the
    SHA-256 of the bytes of the ones before. Parts of days before `kept_since` are deleted, or will be. `sha256` is that
    of these bytes with an empty one in its place.
    """

    format: int = FORMAT
    number: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    oldest: Annotated[int, msgspec.Meta(ge=1, lt=2**53)]
    follows: str
    time: Moment
    writer: str
    kept_since: str
    heads: dict[str, Head]
    sha256: str = ""

    def encode(self) -> bytes:
        """The bytes of the object, checksum included."""
        blank = msgspec.json.encode(msgspec.structs.replace(self, sha256=""))
        digest = hashlib.sha256(blank).hexdigest()
        return blank.removesuffix(b'"sha256":""}') + f'"sha256":"{digest}"}}'.encode()

    @property
    def key(self) -> str:
        """The key of the object."""
        return audit_heads_key(self.number)


_DECODER: Final = msgspec.json.Decoder(Heads)


def decode_heads(data: bytes, key: str) -> Heads:
    """The heads with these bytes, found under this key. Raises Corrupt."""
    if len(data) > HEADS_BYTES_MAX:
        raise Corrupt(f"{key} is longer than heads can be", key)
    try:
        heads = _DECODER.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"{key} has no heads of audit logs: {error}", key) from error
    if heads.format != FORMAT:
        raise Corrupt(f"{key} is of format {heads.format}; this build reads {FORMAT}", key)
    if heads.encode() != data:
        raise Corrupt(f"{key} is damaged: its checksum is another one", key)
    if heads.key != key:
        raise Corrupt(f"{key} has the heads {heads.key}", key)
    return heads
