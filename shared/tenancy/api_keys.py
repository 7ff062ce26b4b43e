"""API keys: their text, and the records that are kept of them. Pure.

```text
pck_<id: 16 of a-z 0-9>_<43 of 0-9 A-Z a-z>
                         37 random (220 bits), and 6 that are the CRC-32 of all before them in base 62
```

The checksum refuses a key that was mistyped or cut off before anything is looked up. A record has the SHA-256 of the
whole key and never the key: 220 random bits need no slow hash. A key that is being rotated has two hashes, of which the
older one holds until its time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import zlib
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

import msgspec

from shared.tenancy.actions import ACTIONS_OF, PLACE_ACTIONS, Action, Role
from shared.tenancy.principal import Principal, Scope

PREFIX: Final = "pck_"
ID_LENGTH: Final = 16
RANDOM_LENGTH: Final = 37
CHECKSUM_LENGTH: Final = 6
SCOPE_NAMES_MAX: Final = 256
"""Most databases, and most collections, that one key may be bound to."""
NAME_LENGTH_MAX: Final = 256
TENANT_LENGTH_MAX: Final = 4096

_ID_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_KEY: Final = re.compile(
    rf"({PREFIX}([a-z0-9]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{RANDOM_LENGTH}}})([0-9A-Za-z]{{{CHECKSUM_LENGTH}}})", re.ASCII
)
_ID: Final = re.compile(rf"[a-z0-9]{{{ID_LENGTH}}}", re.ASCII)

Name = Annotated[str, msgspec.Meta(max_length=NAME_LENGTH_MAX)]
TenantName = Annotated[str, msgspec.Meta(min_length=1, max_length=TENANT_LENGTH_MAX)]
Names = Annotated[list[Annotated[str, msgspec.Meta(max_length=1024)]], msgspec.Meta(max_length=SCOPE_NAMES_MAX)]
Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class NewKey(NamedTuple):
    """A key that was just drawn: its text, which is shown once and kept nowhere, its id, and its hash in hex."""

    text: str
    id: str
    sha256: str


def draw_key(key_id: str | None = None) -> NewKey:
    """A new key from the system's randomness, of the record `key_id` when it is given."""
    own_id = key_id or "".join(secrets.choice(_ID_LETTERS) for _ in range(ID_LENGTH))
    body = f"{PREFIX}{own_id}_" + "".join(secrets.choice(_BASE62) for _ in range(RANDOM_LENGTH))
    text = body + checksum(body)
    return NewKey(text, own_id, digest_of(text))


def checksum(body: str) -> str:
    """The last characters of a key whose other characters are `body`."""
    rest, letters = zlib.crc32(body.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        rest, letter = divmod(rest, len(_BASE62))
        letters = _BASE62[letter] + letters
    return letters


def digest_of(text: str) -> str:
    """The hash of a key by which a record knows it: SHA-256 in hex."""
    return hashlib.sha256(text.encode()).hexdigest()


def looks_like_key(text: str) -> bool:
    """Whether the text is meant to be a key: no other credential begins so."""
    return text.startswith(PREFIX)


def id_of_key(text: str) -> str | None:
    """The id in a key; None when the text is not a whole key, or its checksum does not fit."""
    found = _KEY.fullmatch(text)
    return found[2] if found is not None and hmac.compare_digest(checksum(found[1]), found[3]) else None


def is_key_id(text: str) -> bool:
    """Whether the text has the form of a key's id."""
    return _ID.fullmatch(text) is not None


class KeyHash(msgspec.Struct, frozen=True):
    """A hash of a valid key. `until_s`: the end of its time, in seconds since the epoch; None: that of the record."""

    sha256: Digest
    until_s: float | None = None


class KeyRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that is kept of a key. `tenant` None means every tenant, `databases` and `collections` (ids) None means all.
    Either `role` or `actions` says what it may do. Times are in seconds since the epoch.
    """

    id: Annotated[str, msgspec.Meta(pattern=rf"\A[a-z0-9]{{{ID_LENGTH}}}\Z")]
    name: Name
    tenant: TenantName | None
    databases: Names | None
    collections: Names | None
    role: Role | None
    actions: list[Action] | None
    created_s: float
    creator: str
    expires_s: float | None
    hashes: Annotated[list[KeyHash], msgspec.Meta(min_length=1, max_length=2)]
    revoked_s: float | None = None

    def scope(self) -> Scope:
        """The scope of whoever has the key."""
        return Scope(
            self.tenant,
            None if self.databases is None else frozenset(self.databases),
            None if self.collections is None else frozenset(self.collections),
        )

    def allowed(self) -> frozenset[Action]:
        """The actions of whoever has the key."""
        if self.role is not None:
            return ACTIONS_OF[self.role]
        return frozenset(self.actions or ()) | PLACE_ACTIONS

    def principal(self) -> Principal:
        """The principal of requests with the key."""
        return Principal(self.id, self.scope(), self.allowed(), self.id)

    def holds_until(self, sha256: str, now_s: float) -> float | None:
        """Until when a key with this hash holds, infinity for one that does not expire; None when it does not hold now.
        Takes the same time whatever the hash is.
        """
        ends = [
            min(self.expires_s or float("inf"), known.until_s if known.until_s is not None else float("inf"))
            for known in self.hashes
            if hmac.compare_digest(known.sha256, sha256)
        ]
        if self.revoked_s is not None or not ends or max(ends) <= now_s:
            return None
        return max(ends)

    def usable(self, now_s: float) -> bool:
        """Whether any key of the record holds now."""
        return self.revoked_s is None and (self.expires_s is None or self.expires_s > now_s)

    def rotated(self, sha256: str, now_s: float, overlap_s: float) -> KeyRecord:
        """The record with another key, beside which the newest of its keys holds for `overlap_s` seconds more."""
        newest = self.hashes[-1]
        until_s = now_s + overlap_s
        older = [KeyHash(newest.sha256, min(until_s, newest.until_s or until_s))] if overlap_s > 0 else []
        return msgspec.structs.replace(self, hashes=[*older, KeyHash(sha256)])

    def revoked(self, now_s: float) -> KeyRecord:
        """The record with no key that holds, for good."""
        return self if self.revoked_s is not None else msgspec.structs.replace(self, revoked_s=now_s)


_DECODER: Final = msgspec.json.Decoder(KeyRecord)


def decode_record(data: bytes) -> KeyRecord:
    """The record with these bytes. Raises ValueError for bytes that are none, or that contradict themselves."""
    try:
        record = _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise ValueError(str(error)) from error
    problem = problem_of(record)
    if problem:
        raise ValueError(problem)
    return record


def encode_record(record: KeyRecord) -> bytes:
    """The bytes of a record, as JSON."""
    return msgspec.json.encode(record)


def problem_of(record: KeyRecord) -> str | None:
    """The reason why a record cannot be, as a sentence for whoever asked for it; None when there is none."""
    if (record.role is None) == (record.actions is None):
        return "A key has either a role or a list of actions"
    if record.actions is not None and not record.actions:
        return "A key without a single action is of no use"
    return _problem_of_scope(record.tenant, record.databases, record.collections)


def _problem_of_scope(
    tenant: str | None, databases: Sequence[str] | None, collections: Sequence[str] | None
) -> str | None:
    if databases is not None and tenant is None:
        return "Databases without a tenant: say whose they are"
    if collections is not None and databases is None:
        return "Collections without a database: name the database that they are in"
    if databases is not None and not databases:
        return "An empty list of databases; leave it out for all of them"
    if collections is not None and not collections:
        return "An empty list of collections; leave it out for all of them"
    return None
