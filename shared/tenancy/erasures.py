"""Erasures: what was asked to be erased, and the receipt that says what was. Pure.

A request is a control record (`control/erasures/<id>`), and a receipt an object (`erasures/<id>.json`). Neither has a
record's content or its id: ids of records are kept as their SHA-256, by which a proof finds them again.
"""

from __future__ import annotations

import enum
import hashlib
from collections.abc import Iterable
from typing import Annotated, Final

import msgspec

from shared.errors import Corrupt
from shared.objects.keys import receipt_key

COLLECTIONS_MAX: Final = 2000
"""Collections that one erasure may name, so that its record stays small: larger databases are erased in parts."""
RECORDS_MAX: Final = 2500
"""Ids of records that one erasure may name."""


class ErasureState(enum.StrEnum):
    """The progress of an erasure. `requested`: what is to be erased may still be there for readers, or its barrier is
    yet to be appended; `erasing`: what is left of it is being removed. Once there is a receipt, there is no request.
    """

    REQUESTED = "requested"
    ERASING = "erasing"


class Erasure(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True, kw_only=True):
    """A request. `collections` are the ids of all that it is about. With `records`, the SHA-256 (hex) of ids of
    records, it is about these records of the only collection; without, about collections as wholes, which `database`
    and `collection` name where the request did.

    The log service adds the rest: for each living collection the position (exclusive) up to which its log has to be
    compacted and trimmed (its barrier), and how many barriers were too early; for deleted ones the number of the first
    snapshot of the catalog that cannot name them; and, once it is `noted`, what is going to be removed: numbers of
    objects by collection and kind, and paths of segments.
    """

    id: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{32}$")]
    tenant: str
    database: str | None = None
    collection: str | None = None
    collections: Annotated[list[str], msgspec.Meta(max_length=COLLECTIONS_MAX)]
    records: Annotated[list[str], msgspec.Meta(max_length=RECORDS_MAX)] = []
    requested_s: float
    within_s: float | None = None
    """The time in which it shall be done, in seconds; None: as soon as the log service's setting says."""
    state: ErasureState = ErasureState.REQUESTED
    barriers: dict[str, int] = {}
    attempts: int = 0
    snapshot: int = 0
    noted: bool = False
    objects: dict[str, dict[str, int]] = {}
    segments: list[str] = []

    @property
    def of_records(self) -> bool:
        """Whether it is about records of a collection that goes on."""
        return bool(self.records)

    def encode(self) -> bytes:
        """The body of its control record."""
        return msgspec.json.encode(self)


_ERASURE: Final = msgspec.json.Decoder(Erasure)


def decode_erasure(body: bytes) -> Erasure:
    """The request with this body. Raises Corrupt."""
    try:
        return _ERASURE.decode(body)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"the record of an erasure cannot be read: {error}") from error


class Removed(msgspec.Struct, frozen=True):
    """The objects that were removed of a collection: their numbers by kind, and the paths of segments."""

    collection: str
    objects: dict[str, int]
    segments: list[str]


class Remaining(msgspec.Struct, frozen=True):
    """Something that may still hold what was erased, and why it was left."""

    what: str
    why: str


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """The result of an erasure. `barriers` are, by collection, the positions up to which the log was trimmed. `sha256`
    is that of the content with an empty one in its place.
    """

    format: int = 1
    id: str
    tenant: str
    database: str | None = None
    collection: str | None = None
    records: list[str] = []
    requested_s: float
    due_s: float
    done_s: float
    barriers: dict[str, int] = {}
    snapshot: int = 0
    removed: list[Removed]
    remaining: list[Remaining]
    sha256: str = ""

    @property
    def key(self) -> str:
        """The key of its object."""
        return receipt_key(self.id)

    @property
    def late(self) -> bool:
        """Whether the erasure took longer than it should have."""
        return self.done_s > self.due_s

    def encode(self) -> bytes:
        """The bytes of its object, checksum included."""
        blank = msgspec.structs.replace(self, sha256="")
        return msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(self, sha256=_digest(blank))), indent=1)


def _digest(blank: Receipt) -> str:
    return hashlib.sha256(msgspec.json.encode(blank)).hexdigest()


_RECEIPT: Final = msgspec.json.Decoder(Receipt)


def decode_receipt(data: bytes, key: str) -> Receipt:
    """The receipt with these bytes, found under this key. Raises Corrupt when it is damaged, or another one."""
    try:
        receipt = _RECEIPT.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"{key} is no receipt: {error}", key) from error
    if receipt.encode() != data:
        raise Corrupt(f"{key} is damaged: its checksum is another one", key)
    if receipt.key != key:
        raise Corrupt(f"{key} holds {receipt.key}", key)
    return receipt


def hashed(ids: Iterable[str]) -> list[str]:
    """Ids of records as requests and receipts have them, each once, sorted."""
    return sorted({hashlib.sha256(record_id.encode()).hexdigest() for record_id in ids})
