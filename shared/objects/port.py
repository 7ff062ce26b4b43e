"""The object store: the port that segments, manifests and snapshots go through.

Implementations: `memory`, `directory`, `s3`. `retrying` wraps any of them with deadlines and retries. One contract
suite (`tests/shared/objects/test_contract.py`) runs on all of them.

Contract
--------
```text
Keys      Relative paths: parts of `A-Z a-z 0-9 . _ - = %` joined by single slashes; no part begins with a dot. Anything
          else is a ValueError: a key is never made of a client's text.
Objects   Whole or absent: a reader sees the bytes of one `put` or `create`, never a part of them, and whatever a call
          acknowledged survives the crash of the store's machine as far as the store promises that at all.
Order     A `get` or `list` that begins after a `put`, `create` or `delete` was acknowledged sees it.
Create    Of any number of racing `create` calls on one key, in any number of processes, exactly one returns True, and
          the object has its bytes for ever after (until it is deleted). It loses to an existing object as well.
          No key is a folder of another one.
Errors    ObjectNotFound: the store answered that there is no such object. Unavailable: the store is away or refuses.
          Every operation but `create` may be repeated freely, whatever became of it; a `create` that may have been
          applied raises UnknownOutcome, one that raises plain Unavailable was not applied. VolumeFull: a `download`
          found no room on the local volume. Nothing else is raised on purpose.
```
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Final, Protocol

from shared.errors import PolychromeError, Unavailable
from shared.process.disk import full_disk, is_full


class ObjectNotFound(PolychromeError):
    """The store has no object under this key. Where a manifest named it, the caller turns this into Corrupt."""

    code: ClassVar[str] = "object_not_found"


class UnfitStore(PolychromeError):
    """The store breaks the contract above, and must not be used."""

    code: ClassVar[str] = "unfit_store"


class VolumeFull(Unavailable):
    """The local volume has no room for what is downloaded. Trying again helps only after room was made."""


@contextlib.contextmanager
def noticing_full_volume(path: Path) -> Iterator[None]:
    """Raises VolumeFull instead of the OSError of a write that found no room on the volume of `path`, or a quota used
    up, inside of it.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise VolumeFull(full_disk(path)) from error
        raise


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """An object in a listing. `modified_s` is when it was written by the store's clock, in seconds since the epoch."""

    key: str
    bytes: int
    modified_s: float


class ObjectStore(Protocol):
    """An object store that keeps the contract in the text of this module."""

    async def get(self, key: str) -> bytes:
        """The bytes of the whole object, which should be a small one."""
        ...

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        """Bytes [start, end) of the object; shorter where the object ends before; ValueError unless 0 <= start <
        end.
        """
        ...

    async def download(self, key: str, path: Path) -> None:
        """The whole object into the file `path` (its folder exists). The file is whole or absent, and not fsynced.
        Raises VolumeFull when there is no room for it.
        """
        ...

    async def put(self, key: str, data: bytes | Path) -> None:
        """Creates or replaces the object by these bytes or by the content of this file."""
        ...

    async def create(self, key: str, data: bytes) -> bool:
        """Creates the object unless it exists; whether this call did. Racing writers must have different bytes (a
        manifest names its writer): that is how a writer whose answer was lost recognises its own object.
        """
        ...

    async def delete(self, keys: Iterable[str]) -> None:
        """Deletes the objects, in no order; those that do not exist are skipped. May stop half-way with an error."""
        ...

    def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        """Objects whose key begins with this text (a plain prefix: `a/b` matches `a/bc`), ascending by key."""
        ...


_KEY: Final = re.compile(r"[A-Za-z0-9_=%-][A-Za-z0-9._=%-]*(/[A-Za-z0-9_=%-][A-Za-z0-9._=%-]*)*", re.ASCII)


def check_key(key: str) -> str:
    """The key itself; ValueError when the contract does not allow it."""
    if not _KEY.fullmatch(key):
        raise ValueError(f"{key!r} is not an object key")
    return key


def check_range(start: int, end: int) -> None:
    if not 0 <= start < end:
        raise ValueError(f"[{start}, {end}) is not a range of bytes")
