"""Segment files on the worker's disk. Losing them costs a download; they are verified before every opening.

    <cache dir>/slot-<n>/lock            held by one process; the next one takes the next slot
    <cache dir>/slot-<n>/<segment id>/   whole: downloaded beside and renamed, so a half-made one never has this name
    <cache dir>/slot-<n>/tmp-<...>/      being downloaded, or left by a process that died

A segment's files are immutable and its id is never used again, so what is there is either right or damaged.
Deleting files that are still mapped is safe: the system keeps them until the last mapping goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from prometheus_client import Counter

from shared.errors import Corrupt
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.segment.format import SegmentInfo, verify

SLOTS_MAX: Final = 256
_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,100}", re.ASCII)

FETCHES: Final = Counter("polychrome_queryworker_segment_fetches", "Segments downloaded from object storage.")
FETCHED_BYTES: Final = Counter("polychrome_queryworker_fetched_bytes", "Bytes of segments downloaded.")


@contextlib.contextmanager
def own_slot(cache_dir: Path) -> Iterator[Path]:
    """A folder in `cache_dir` that no other process uses, by preference one that has files already."""
    for number in range(SLOTS_MAX):
        slot = cache_dir / f"slot-{number}"
        slot.mkdir(parents=True, exist_ok=True)
        with (slot / "lock").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            for left in slot.glob("tmp-*"):
                shutil.rmtree(left, ignore_errors=True)
            yield slot
            return
    raise RuntimeError(f"{cache_dir} has {SLOTS_MAX} slots, all in use")


class SegmentCache:
    """Fetches segments into a slot. One caller at a time per segment (`queryworker.segments` sees to it)."""

    def __init__(self, slot: Path, objects: ObjectStore, bytes_max: int) -> None:
        self._slot = slot
        self._objects = objects
        self._bytes_max = bytes_max

    async def fetch(self, info: SegmentInfo) -> Path:
        """The verified folder of a segment, downloaded unless it is there. Corrupt when it fails its check, be it
        as downloaded or as found; such a folder is removed, so that trying again downloads it.
        """
        folder = self._folder(info.id)
        if not await asyncio.to_thread(folder.exists):
            await self._download(info, folder)
        try:
            await asyncio.to_thread(verify, folder, info)
        except Corrupt:
            await self.remove(info.id)
            raise
        await asyncio.to_thread(os.utime, folder)  # for `trim`: used now
        return folder

    async def remove(self, segment: str) -> None:
        await asyncio.to_thread(shutil.rmtree, self._folder(segment), ignore_errors=True)

    async def trim(self, in_use: frozenset[str]) -> int:
        """Delete the longest unused segments while the folder is over its budget; bytes that are left."""
        return await asyncio.to_thread(self._trim, in_use)

    def _trim(self, in_use: frozenset[str]) -> int:
        sizes: dict[Path, int] = {}
        used: dict[Path, float] = {}
        for folder in self._slot.iterdir():
            if folder.is_dir() and not folder.name.startswith("tmp-"):
                sizes[folder] = sum(file.stat().st_size for file in folder.iterdir())
                used[folder] = folder.stat().st_mtime
        total = sum(sizes.values())
        for folder in sorted(sizes, key=lambda one: used[one]):
            if total <= self._bytes_max:
                break
            if folder.name not in in_use:
                shutil.rmtree(folder, ignore_errors=True)
                total -= sizes[folder]
        return total

    def _folder(self, segment: str) -> Path:
        if not _ID.fullmatch(segment):
            raise Corrupt(f"{segment!r} is not a segment's id")
        return self._slot / segment

    async def _download(self, info: SegmentInfo, folder: Path) -> None:
        if sorted(file.name for file in info.files) != sorted(info.names()):
            raise Corrupt(f"segment {info.id} lists other files than a segment has")
        making = self._slot / f"tmp-{uuid.uuid4().hex}"
        await asyncio.to_thread(making.mkdir)
        try:
            async with asyncio.TaskGroup() as group:
                for file in info.files:
                    group.create_task(self._objects.download(f"{info.path}/{file.name}", making / file.name))
            await asyncio.to_thread(making.rename, folder)
        except* ObjectNotFound as missing:
            raise Corrupt(f"segment {info.id} is not whole in object storage") from missing
        finally:
            await asyncio.to_thread(shutil.rmtree, making, ignore_errors=True)
        FETCHES.inc()
        FETCHED_BYTES.inc(sum(file.bytes for file in info.files))
