"""The destination of backups: immutable objects that are copied once, and the records that name them."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from pathlib import Path

import xxhash

from polychrome.backup.model import (
    BACKUPS,
    FILES,
    LOG,
    RUNNING,
    Backup,
    StoredFile,
    backup_key,
    decode,
    name_in,
)
from shared.errors import Corrupt, NotFound
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.segment.format import checksum as checksum_of_file


class Archive:
    """Backups at one destination. `progress` is told the bytes of each object that was copied. Everything raises
    Unavailable while the destination is away.
    """

    def __init__(self, objects: ObjectStore, progress: Callable[[int], None] = lambda _: None) -> None:
        self._objects = objects
        self._progress = progress
        self._known: dict[str, dict[str, int]] = {}
        """Objects that are there already, with their lengths, by the first part of their key."""
        self._kept = set[StoredFile]()
        """Objects that this backup has copied. Several manifests of a history name the same files, and a collection
        that is read anew names what it named before.
        """
        self.copied = 0
        self.copied_bytes = 0
        self.reused = 0

    # Taking

    async def keep_file(self, source: ObjectStore, key: str, size: int, checksum: str) -> StoredFile:
        """Has the object with this key of the cluster's bucket at the destination. Raises ObjectNotFound when the
        bucket has it no more, and Corrupt when its bytes are others.
        """
        stored = StoredFile(f"{FILES}{key}", size, checksum)
        if stored in self._kept:
            return stored
        if (await self._present(FILES, key.split("/")[0])).get(stored.key) == size:
            self.reused += 1
            return stored
        with tempfile.TemporaryDirectory(prefix="polychrome-backup-") as folder:
            path = Path(folder, "object")
            await source.download(key, path)
            await asyncio.to_thread(_prove, path, stored, key)
            await self._objects.put(stored.key, path)
        self._count(stored)
        return stored

    async def keep_bytes(self, key: str, data: bytes) -> StoredFile:
        """Has these bytes, which the bucket has under this key for ever, at the destination."""
        stored = StoredFile(f"{FILES}{key}", len(data), xxhash.xxh3_128_hexdigest(data))
        await self._keep(stored, FILES, key.split("/")[0], data)
        return stored

    async def keep_page(self, collection: str, shard: int, first: int, last: int, data: bytes) -> StoredFile:
        """Has this page of a log at the destination."""
        checksum = xxhash.xxh3_128_hexdigest(data)
        stored = StoredFile(f"{LOG}{collection}/{shard}/{first:020d}-{last:020d}-{checksum}", len(data), checksum)
        await self._keep(stored, LOG, collection, data)
        return stored

    async def _keep(self, stored: StoredFile, kind: str, collection: str, data: bytes) -> None:
        if stored in self._kept:
            return
        if (await self._present(kind, collection)).get(stored.key) == stored.bytes:
            self.reused += 1
        else:
            await self._objects.put(stored.key, data)
            self._count(stored)

    async def begin(self, name: str) -> None:
        """Says that a backup of this name is being taken: nothing is pruned until it ends."""
        await self._objects.put(f"{RUNNING}{name}", b"")

    async def finish(self, backup: Backup) -> None:
        """Makes the backup count."""
        data = await asyncio.to_thread(backup.encode)
        if not await self._objects.create(backup_key(backup.name), data):
            raise Corrupt(f"there is a backup {backup.name} already")
        await self._objects.delete([f"{RUNNING}{backup.name}"])

    async def _present(self, kind: str, collection: str) -> dict[str, int]:
        """The objects of a kind and a collection that were there when it was first asked, with their lengths."""
        prefix = f"{kind}{collection}/"
        if prefix not in self._known:
            self._known[prefix] = {info.key: info.bytes async for info in self._objects.list(prefix)}
        return self._known[prefix]

    def _count(self, stored: StoredFile) -> None:
        self._kept.add(stored)
        self.copied += 1
        self.copied_bytes += stored.bytes
        self._progress(stored.bytes)

    # Reading

    async def names(self) -> list[str]:
        """The names of all backups, oldest first."""
        names = [name_in(info.key) async for info in self._objects.list(BACKUPS)]
        return sorted(name for name in names if name is not None)

    async def running(self) -> list[str]:
        """The backups that are being taken, or whose taker died."""
        return [info.key.removeprefix(RUNNING) async for info in self._objects.list(RUNNING)]

    async def read(self, name: str) -> Backup:
        """The backup of this name. Raises NotFound, Corrupt."""
        try:
            data = await self._objects.get(backup_key(name))
        except ObjectNotFound as error:
            raise NotFound(f"there is no backup {name}") from error
        return await asyncio.to_thread(decode, data, name)

    async def fetch(self, stored: StoredFile, path: Path) -> None:
        """The object into a file, proven. Raises Corrupt."""
        try:
            await self._objects.download(stored.key, path)
        except ObjectNotFound as error:
            raise Corrupt(f"{stored.key} is missing from the backup") from error
        await asyncio.to_thread(_prove, path, stored, stored.key)

    async def fetch_bytes(self, stored: StoredFile) -> bytes:
        """The bytes of a small object, proven. Raises Corrupt."""
        try:
            data = await self._objects.get(stored.key)
        except ObjectNotFound as error:
            raise Corrupt(f"{stored.key} is missing from the backup") from error
        if len(data) != stored.bytes or xxhash.xxh3_128_hexdigest(data) != stored.checksum:
            raise Corrupt(f"{stored.key} fails its checksum")
        return data

    # Removing

    async def prune(self, doomed: list[str]) -> int:
        """Removes these backups, and then every object that no other backup names; returns how many objects went."""
        await self._objects.delete([backup_key(name) for name in doomed])
        kept: set[str] = set()
        for name in await self.names():
            kept.update(stored.key for stored in (await self.read(name)).stored())
        removed = 0
        for prefix in (FILES, LOG):
            unnamed = [info.key async for info in self._objects.list(prefix) if info.key not in kept]
            await self._objects.delete(unnamed)
            removed += len(unnamed)
        return removed


def _prove(path: Path, stored: StoredFile, key: str) -> None:
    """Raises Corrupt unless the file has the length and the checksum that it should."""
    if path.stat().st_size != stored.bytes or checksum_of_file(path) != stored.checksum:
        raise Corrupt(f"{key} fails its checksum")
