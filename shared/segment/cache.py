"""Segment files on the local disk: fetched once, verified, kept within a budget of bytes.

    <root>/<segment id>/<file>        whole and verified, or left by an earlier process and verified before its first
    use <root>/.incoming/<random>/<file>  being fetched, or being removed; emptied when the cache is opened

A segment never changes, so neither does its folder. A folder in use is never removed; of the others the one unused for
the longest time goes first. Files that are mapped stay readable after they were removed.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Gauge

from shared.errors import Corrupt, Unavailable
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.telemetry import get_logger
from shared.segment.format import SegmentInfo, verify

FETCHED_BYTES: Final = Counter("polychrome_segment_cache_fetched_bytes", "Bytes of segments fetched from the bucket.")
LOOKUPS: Final = Counter("polychrome_segment_cache_lookups", "Uses of segments by what the cache had.", ["found"])
CACHED_BYTES: Final = Gauge("polychrome_segment_cache_bytes", "Bytes of segments on the local disk.")
CORRUPT_FETCHES: Final = Counter("polychrome_segment_cache_corrupt", "Segments that failed their check after a fetch.")

FETCH_ATTEMPTS: Final = 2

log = get_logger(__name__)
_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*", re.ASCII)


@dataclass(slots=True)
class _Held:
    bytes: int
    users: int = 0
    verified: bool = False


class SegmentCache:
    """Invariant: `_held` has exactly the folders below `root` that are whole, least recently used first. Folders appear
    and disappear under their name by one rename each, on the event loop, together with their entry.
    """

    def __init__(self, objects: ObjectStore, root: Path, bytes_max: int) -> None:
        self._objects = objects
        self._root = root
        self._bytes_max = bytes_max
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._arriving: dict[str, asyncio.Task[None]] = {}

    async def open(self) -> None:
        """Takes over what an earlier process left, and removes what it left half-done."""
        left = await asyncio.to_thread(_survey, self._root)
        self._held = OrderedDict((name, _Held(size)) for name, size in left)
        await self._evict()

    @contextlib.asynccontextmanager
    async def hold(self, info: SegmentInfo) -> AsyncIterator[Path]:
        """The folder with the segment's verified files, kept at least until the context ends. Raises Corrupt when the
        bucket has other bytes than the manifest says, Unavailable when it is away or the local disk is full.
        """
        if not _ID.fullmatch(info.id):
            raise Corrupt(f"{info.id!r} is not a segment's id")
        held = self._held.get(info.id)
        LOOKUPS.labels("no" if held is None else "yes").inc()
        while held is None or not held.verified:
            await self._arrival(info)
            held = self._held.get(info.id)
        self._held.move_to_end(info.id)
        held.users += 1
        try:
            yield self._root / info.id
        finally:
            held.users -= 1
            await self._evict()

    async def adopt(self, info: SegmentInfo, directory: Path) -> None:
        """Takes over a folder (of the same file system) with the files of a segment that was just written."""
        directory.rename(self._root / info.id)  # noqa: ASYNC240 (a rename does not wait)
        self._held[info.id] = _Held(_bytes_of(info), verified=True)
        await self._evict()

    async def _arrival(self, info: SegmentInfo) -> None:
        """Waits until the segment is here and verified: one verification or fetch, however many ask."""
        task = self._arriving.get(info.id)
        if task is None:
            task = self._arriving[info.id] = asyncio.create_task(self._arrive(info))
            task.add_done_callback(lambda done: self._arrived(info.id, done))
        try:
            await asyncio.shield(task)
        except OSError as error:
            raise Unavailable(f"the local disk: {error}") from error

    def _arrived(self, name: str, task: asyncio.Task[None]) -> None:
        del self._arriving[name]
        if not task.cancelled():
            task.exception()  # whoever still waits gets it; nobody may be left

    async def _arrive(self, info: SegmentInfo) -> None:
        held = self._held.get(info.id)
        if held is not None:
            try:
                await asyncio.to_thread(verify, self._root / info.id, info)
            except Corrupt as error:
                log.warning("cached segment is damaged", segment=info.id, error=str(error))
                await self._discard(info.id)
            else:
                held.verified = True
                return
        await self._fetch(info)

    async def _fetch(self, info: SegmentInfo) -> None:
        """Into the incoming folder, verified, then renamed. A fetch that fails its check is repeated once."""
        for attempt in range(FETCH_ATTEMPTS):
            incoming = self._root / ".incoming" / uuid.uuid4().hex
            await asyncio.to_thread(incoming.mkdir, parents=True)
            try:
                await self._download(info, incoming)
                await asyncio.to_thread(verify, incoming, info)
                incoming.rename(self._root / info.id)
                self._held[info.id] = _Held(_bytes_of(info), verified=True)
            except Corrupt as error:
                CORRUPT_FETCHES.inc()
                log.error("segment fails its check", segment=info.id, path=info.path, attempt=attempt, error=str(error))  # noqa: TRY400 (no stack: data is at fault)
                if attempt + 1 == FETCH_ATTEMPTS:
                    raise
            else:
                FETCHED_BYTES.inc(_bytes_of(info))
                return
            finally:
                await asyncio.to_thread(shutil.rmtree, incoming, ignore_errors=True)

    async def _download(self, info: SegmentInfo, directory: Path) -> None:
        downloads = [self._objects.download(f"{info.path}/{file.name}", directory / file.name) for file in info.files]
        for ended in await asyncio.gather(*downloads, return_exceptions=True):
            if isinstance(ended, ObjectNotFound):
                raise Corrupt(f"segment {info.id}: {ended.message} is missing in the bucket") from ended
            if ended is not None:
                raise ended

    async def _evict(self) -> None:
        doomed = []
        total = sum(held.bytes for held in self._held.values())
        for name, held in self._held.items():
            if total <= self._bytes_max:
                break
            if held.users == 0 and name not in self._arriving:
                doomed.append(name)
                total -= held.bytes
        CACHED_BYTES.set(total)
        for name in doomed:
            # Meanwhile another eviction may have run, and somebody may have begun to verify or use it.
            if name in self._held and self._held[name].users == 0 and name not in self._arriving:
                await self._discard(name)

    async def _discard(self, name: str) -> None:
        del self._held[name]
        doomed = self._root / ".incoming" / uuid.uuid4().hex
        doomed.parent.mkdir(exist_ok=True)
        (self._root / name).rename(doomed)
        await asyncio.to_thread(shutil.rmtree, doomed, ignore_errors=True)


def _bytes_of(info: SegmentInfo) -> int:
    return sum(file.bytes for file in info.files)


def _survey(root: Path) -> list[tuple[str, int]]:
    """Whole folders with their sizes, least recently changed first. Makes the root, empties the incoming folder."""
    root.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(root / ".incoming", ignore_errors=True)
    folders = [path for path in root.iterdir() if path.is_dir() and _ID.fullmatch(path.name)]
    folders.sort(key=lambda path: path.stat().st_mtime)
    return [(path.name, sum(file.stat().st_size for file in path.iterdir())) for path in folders]
