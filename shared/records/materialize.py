"""The effect of an operation on a record: the one definition, used by the compactor and the query worker alike.

Operations are resolved in log order, one after the other, also within a batch. So of an id given twice to `add` the
first wins, and in `upsert` the last.

```text
operation   the id is absent    the id is there
add         inserted            nothing
update      nothing             merged
upsert      inserted            merged
delete      nothing             removed
```

Merged: a given embedding, document or uri replaces, null keeps; metadata is patched key by key. A record keeps the
position of its insertion through every merge; after a delete an insertion gets a new one.
"""

from __future__ import annotations

import enum
from typing import Any, Final, NamedTuple

import orjson

from shared.errors import Corrupt
from shared.records.model import Op
from shared.vectors.arrays import Vector


class Record(NamedTuple):
    """A live record. `metadata` is JSON text without null members, or None when there is none. `inserted` and `written`
    are the positions of the operations that inserted it and that wrote it last.
    """

    embedding: Vector
    document: str | None
    metadata: str | None
    uri: str | None
    inserted: int
    written: int


class Given(NamedTuple):
    """The columns of an operation. None keeps what the record has (or, in a new record, leaves it out); `metadata` is a
    patch in JSON text, whose null members remove keys.
    """

    embedding: Vector | None
    document: str | None
    metadata: str | None
    uri: str | None


class Change(enum.Enum):
    """The effect of an operation on a record."""

    NOTHING = enum.auto()
    INSERTED = enum.auto()
    MERGED = enum.auto()
    REMOVED = enum.auto()


class Outcome(NamedTuple):
    """The change that an operation made, and the record afterwards: None when the id is absent."""

    change: Change
    record: Record | None


_ABSENT: Final = Outcome(Change.NOTHING, None)
_REMOVED: Final = Outcome(Change.REMOVED, None)


def resolve(op: Op, current: Record | None, given: Given, position: int) -> Outcome:
    """Applies one operation, at `position`, to the record as it is now (None: absent).

    Raises Corrupt when a record would be inserted without an embedding: no accepted write does that.
    """
    if current is None:
        if op is Op.DELETE or op is Op.UPDATE:
            return _ABSENT
        if given.embedding is None:
            raise Corrupt(f"the operation at position {position} inserts a record without an embedding")
        metadata = new_metadata(given.metadata)
        inserted = Record(given.embedding, given.document, metadata, given.uri, position, position)
        return Outcome(Change.INSERTED, inserted)
    if op is Op.DELETE:
        return _REMOVED
    if op is Op.ADD:
        return Outcome(Change.NOTHING, current)
    merged = Record(
        embedding=current.embedding if given.embedding is None else given.embedding,
        document=current.document if given.document is None else given.document,
        metadata=patch_metadata(current.metadata, given.metadata),
        uri=current.uri if given.uri is None else given.uri,
        inserted=current.inserted,
        written=position,
    )
    return Outcome(Change.MERGED, merged)


def new_metadata(given: str | None) -> str | None:
    """The metadata of a new record: the patch without its null members; None when nothing is left."""
    if given is None or given == "{}":
        return None
    if "null" not in given:  # the usual case; a «null» inside a string or a deeper value only costs the longer way
        return given
    return _text(_without_nulls(orjson.loads(given)))


def patch_metadata(current: str | None, given: str | None) -> str | None:
    """Metadata after a patch: given members replace, null removes, all others stay in their order. JSON text, None for
    no member.
    """
    if given is None or given == "{}":
        return current
    if current is None:
        return new_metadata(given)
    return _text(_without_nulls({**orjson.loads(current), **orjson.loads(given)}))


def _without_nulls(members: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in members.items() if value is not None}


def _text(members: dict[str, Any]) -> str | None:
    # Integers and floats keep their kind: orjson reads `2.0` as a float and writes it so.
    return orjson.dumps(members).decode() if members else None
