"""Proves that backups at a destination are what was written: their own objects, and every object that they name."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from polychrome.backup.archive import Archive
from polychrome.backup.model import StoredFile
from shared.errors import Corrupt
from shared.process.concurrency import map_concurrently

OBJECTS_AT_ONCE: Final = 8


class DamagedObject(msgspec.Struct, frozen=True):
    """An object at the destination that is damaged or missing: what was found, and the backups that need it."""

    what: str
    backups: list[str]


class Proof(msgspec.Struct, frozen=True):
    """The result: how many backups, and how many of their objects with how many bytes, were read; what is damaged."""

    backups: int
    objects: int
    bytes: int
    damaged: list[DamagedObject]


async def prove(archive: Archive) -> Proof:
    """Reads every object of every backup once. Raises Unavailable."""
    names = await archive.names()
    damaged = list[DamagedObject]()
    needed = dict[StoredFile, list[str]]()
    for name in names:
        try:
            for stored in set((await archive.read(name)).stored()):
                needed.setdefault(stored, []).append(name)
        except Corrupt as error:
            damaged.append(DamagedObject(error.message, [name]))
    with tempfile.TemporaryDirectory(prefix="polychrome-backup-") as folder:

        async def check(numbered: tuple[int, StoredFile]) -> None:
            number, stored = numbered
            path = Path(folder, str(number))
            try:
                await archive.fetch(stored, path)
            except Corrupt as error:
                damaged.append(DamagedObject(error.message, needed[stored]))
            finally:
                await asyncio.to_thread(path.unlink, missing_ok=True)

        await map_concurrently(check, enumerate(needed), at_once=OBJECTS_AT_ONCE)
    return Proof(len(names), len(needed), sum(stored.bytes for stored in needed), damaged)
