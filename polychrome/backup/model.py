"""The parts of a backup, and how they are laid out at its destination.

```text
backups/<name>.json.gz                  a backup: all that it consists of, by name and checksum. Written last, once
running/<name>                          a backup that is being taken, or whose taker died
files/<key in the cluster's bucket>     an immutable object: a manifest, or a file of a segment. Copied once, whatever
                                        number of backups name it
log/<collection>/<shard>/<first>-<last>-<checksum>
                                        a page of the log behind a manifest: its first and last position
```

Name: the moment at which the backup was begun, UTC, `20261130T184501.250Z`. Names sort by time.

A collection in a backup is what it was at one moment: each shard's committed manifest, and its log from there up to the
head of that moment; and its past, if it keeps that. Moments of different collections differ, and lie between `begun_s`
and `ended_s`.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec
import xxhash

from shared.errors import Corrupt
from shared.log.state import FIRST_ID, Entry

FORMAT: Final = 1
BACKUPS: Final = "backups/"
RUNNING: Final = "running/"
FILES: Final = "files/"
LOG: Final = "log/"
BACKUP_BYTES_MAX: Final = 4 * 1024**3
"""Bytes of a record that are unpacked at most."""

_NAME: Final = re.compile(r"\d{8}T\d{6}\.\d{3}Z", re.ASCII)


class StoredFile(msgspec.Struct, frozen=True):
    """An object at the destination: its key there, its length, its xxh3-128 in hex."""

    key: str
    bytes: int
    checksum: str


class LogPage(msgspec.Struct, frozen=True):
    """Entries of a shard's log, in order: where they are, the operations in them, and the times of the first and the
    last one, in ms since the epoch.
    """

    file: StoredFile
    operations: int
    first_ms: int
    last_ms: int


class ManifestBackup(msgspec.Struct, frozen=True):
    """A manifest, when it was made, and the files of the segments that it names."""

    file: StoredFile
    covers: int
    created_s: float
    segments: list[StoredFile]


class ShardBackup(msgspec.Struct, frozen=True):
    """A shard: its manifests, oldest first (none when nothing was compacted yet), and its log. The last manifest is the
    one that was in force; those before it, and sealed log objects, are there when the collection keeps its history.
    `log` is what the stream had at the position `log_from` or later.
    """

    manifests: list[ManifestBackup]
    sealed: list[LogPage]
    log: list[LogPage]
    log_from: int

    def stored(self) -> Iterator[StoredFile]:
        """Every object that the shard needs."""
        for manifest in self.manifests:
            yield manifest.file
            yield from manifest.segments
        yield from (page.file for page in (*self.sealed, *self.log))


class CollectionBackup(msgspec.Struct, frozen=True):
    """A collection as of the position `head`, with what its catalog row and its state say. `appended` counts the
    operations that it ever got; `function` is the name of the function whose output it was.
    """

    id: str
    name: str
    tenant: str
    database: str
    metadata: dict[str, Any] | None
    configuration: dict[str, Any]
    schema: dict[str, Any]
    fixed: dict[str, Any]
    dimension: int | None
    keys: list[tuple[str, str]]
    head: int
    appended: int
    taken_s: float
    function: str | None
    shards: list[ShardBackup]

    @property
    def path(self) -> str:
        """Tenant, database and name."""
        return f"{self.tenant}/{self.database}/{self.name}"


class DatabaseBackup(msgspec.Struct, frozen=True):
    """A database of a tenant."""

    tenant: str
    name: str
    id: str


class TenantBackup(msgspec.Struct, frozen=True):
    """A tenant."""

    name: str
    resource_name: str | None


class Backup(msgspec.Struct, frozen=True):
    """A whole backup of the cluster with this id. `selected` are the ids of the collections that were asked for, None
    when all were. `failed` are the collections that could not be read, by id, each with its path and the reason: they
    are not in it. A database that had lost some is there by its path.
    """

    name: str
    cluster: str
    begun_s: float
    ended_s: float
    tenants: list[TenantBackup]
    databases: list[DatabaseBackup]
    collections: list[CollectionBackup]
    failed: dict[str, str] = {}
    selected: list[str] | None = None
    checksum: str = ""
    format: int = FORMAT

    def stored(self) -> Iterator[StoredFile]:
        """Every object that the backup needs."""
        for collection in self.collections:
            for shard in collection.shards:
                yield from shard.stored()

    def encode(self) -> bytes:
        """The bytes of the backup's own object."""
        proven = msgspec.structs.replace(self, checksum=_checksum_of(self))
        return gzip.compress(msgspec.json.encode(proven), compresslevel=3, mtime=int(self.ended_s))


_BACKUP: Final = msgspec.json.Decoder(Backup)


def decode(data: bytes, name: str) -> Backup:
    """The backup of this name, from the bytes of its object. Raises Corrupt."""
    try:
        backup = _BACKUP.decode(_unpacked(data))
    except (zlib.error, msgspec.MsgspecError, ValueError) as error:
        raise Corrupt(f"backup {name} cannot be read: {error}") from error
    if backup.format != FORMAT:
        raise Corrupt(f"backup {name} has format {backup.format}; this build reads {FORMAT}")
    if backup.checksum != _checksum_of(backup) or backup.name != name:
        raise Corrupt(f"backup {name} fails its checksum")
    return backup


def _unpacked(data: bytes) -> bytes:
    """The bytes that gzip packed. Raises zlib.error, and ValueError for more than BACKUP_BYTES_MAX or less than all."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    unpacked = unpacking.decompress(data, BACKUP_BYTES_MAX)
    if not unpacking.eof:
        raise ValueError("it is cut off, or too long")
    return unpacked


def _checksum_of(backup: Backup) -> str:
    return xxhash.xxh3_128_hexdigest(msgspec.json.encode(msgspec.structs.replace(backup, checksum="")))


def backup_key(name: str) -> str:
    """The key of a backup's own object."""
    return f"{BACKUPS}{name}.json.gz"


def name_in(key: str) -> str | None:
    """The name of the backup whose object has this key; None for any other key."""
    name = key.removeprefix(BACKUPS).removesuffix(".json.gz")
    return name if _NAME.fullmatch(name) and backup_key(name) == key else None


def is_name(text: str) -> bool:
    """Whether this may be the name of a backup."""
    return _NAME.fullmatch(text) is not None


class _Row(msgspec.Struct, frozen=True, array_like=True):
    """An entry in a page: its members as in `Entry`."""

    id: str
    first: int
    end: int
    last: bool
    count: int
    time_ms: int
    checksum: str
    payload: bytes


_ROWS: Final = msgspec.msgpack.Decoder(list[_Row])


def encode_page(entries: Sequence[Entry]) -> bytes:
    """A page of the log: of each entry what a copy of it needs."""
    return msgspec.msgpack.encode(
        [
            _Row(one.id, one.first, one.end, one.last, one.count, one.time_ms, one.checksum, one.payload)
            for one in entries
        ]
    )


def decode_page(data: bytes, key: str) -> list[Entry]:
    """The entries of a page, to be copied: they are chained to nothing yet. Raises Corrupt."""
    try:
        rows = _ROWS.decode(data)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{key} is no page of a log: {error}") from error
    return [
        Entry(
            id=row.id, previous=FIRST_ID, first=row.first, end=row.end, last=row.last, count=row.count,
            time_ms=row.time_ms, checksum=row.checksum, payload=row.payload,
        )
        for row in rows
    ]  # fmt: skip
