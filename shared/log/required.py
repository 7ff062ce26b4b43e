"""The fields of a state hash that say whether a collection's state is whole: there, and such that they can be read.

A field whose bytes changed into something that cannot be read is as good as lost: nothing of the collection could be
read or written by it. It is removed and filled in again like one that was lost (`logservice.restoring.recover`). A
number that changed into another number is not noticed.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from typing import Final

import orjson

from shared.cluster.placement import Layout

UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError)
"""The errors of reading a damaged field of a state: a number, a layout, a JSON text."""

_NUMBER: Final = re.compile(rb"\d+")
_COUNT: Final = re.compile(rb"-?\d+")


def _number(value: bytes) -> None:
    """Scripts read these numbers, too, and would take `1e3` or `0x7` for one."""
    if not _NUMBER.fullmatch(value):
        raise ValueError("no number")


def _count(value: bytes) -> None:
    if not _COUNT.fullmatch(value):
        raise ValueError("no count")


def _layout(value: bytes) -> None:
    first, count = value.split(b" ")
    _number(first)
    _number(count)
    if Layout.decode(value).count < 1:
        raise ValueError("no shards")


@functools.lru_cache(maxsize=1024)
def _config(value: bytes) -> None:
    if not isinstance(orjson.loads(value), dict):
        raise TypeError("no JSON object")


_READERS: Final[Mapping[str, Callable[[bytes], object]]] = {
    "head": _number,
    "gen": _number,
    "config": _config,
    "layout": _layout,
    "laid_s": float,
    "db": bytes.decode,
    "created": float,
    "backlog_ops": _count,
    "backlog_bytes": _count,
    "dim": _number,
    "epoch": _number,
    "floor": _number,
}

_OPTIONAL: Final = frozenset({"dim", "epoch", "floor"})


_ENTRY_ID: Final = re.compile(rb"\d+-\d+")
_CHAIN: Final = re.compile(rb"[0-9a-f]{40}")


def _entry_id(value: bytes) -> None:
    if not _ENTRY_ID.fullmatch(value):
        raise ValueError("no id of an entry")


def _chain(value: bytes) -> None:
    if not _CHAIN.fullmatch(value):
        raise ValueError("no chain")


def _pointer(value: bytes) -> None:
    fields = orjson.loads(value)
    if not (
        isinstance(fields["version"], int) and isinstance(fields["covers"], int) and isinstance(fields["hash"], str)
    ):
        raise TypeError("no pointer")


_SHARD_READERS: Final[Mapping[str, Callable[[bytes], object]]] = {
    "tail": _entry_id,
    "chain": _chain,
    "ops": _number,
    "bytes": _number,
    "trimmed_ops": _number,
    "trimmed_bytes": _number,
    "trimmed": _number,
    "m": _pointer,
}
"""The fields of each shard that can be made again: of its stream, or of the bucket."""


_FUNCTION_READERS: Final[Mapping[str, Callable[[bytes], object]]] = {
    "feeds": bytes.decode,
    "counted": _number,
    "runs": _number,
}
"""The fields of a function's input: its next run says them again."""


def unreadable_shard_fields(state: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """Those fields of the present shards, and of a function's input, that are there, cannot be read, and can be made
    again, with their values.
    `state` is the whole hash; there are none while its layout cannot be read.
    """
    found: dict[str, bytes] = {}
    try:
        shards = Layout.decode(state[b"layout"]).numbers
    except UNREADABLE:
        return found
    readers = {f"{name}:{shard}": read for shard in shards for name, read in _SHARD_READERS.items()}
    for name, read in {**readers, **_FUNCTION_READERS}.items():
        value = state.get(name.encode())
        try:
            if value is not None:
                read(value)
        except UNREADABLE:
            found[name] = value or b""
    return found


def required_fields() -> tuple[str, ...]:
    """The fields that every state has from its first moment."""
    return tuple(name for name in _READERS if name not in _OPTIONAL)


def checked_fields() -> tuple[str, ...]:
    """The required fields, and others that must be readable where a state has them."""
    return tuple(_READERS)


def unreadable_fields(state: Mapping[str, bytes | None], database_key: str | None = None) -> dict[str, bytes]:
    """Those of these fields of a state that are there and cannot be read, with their values: names of `checked_fields`.
    `db` is one of them, too, when it is not `database_key`, the database that has the collection's row.
    """
    found: dict[str, bytes] = {}
    for name, value in state.items():
        if value is None:
            continue
        try:
            _READERS[name](value)
        except UNREADABLE:
            found[name] = value
    owner = state.get("db")
    if database_key is not None and owner is not None and owner != database_key.encode():
        found["db"] = owner
    return found


def is_whole(state: Mapping[str, bytes | None], database_key: str | None = None) -> bool:
    """Whether a state with these fields has lost none of them: all can be read, and all but the optional are there."""
    there = all(value is not None or name in _OPTIONAL for name, value in state.items())
    return there and not unreadable_fields(state, database_key)
