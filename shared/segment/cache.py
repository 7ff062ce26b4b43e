"""Segment files on the local disk: fetched once, verified, kept within a budget of bytes.

```text
<root>/<segment id>/<file>          whole and verified, or left by an earlier process and verified before the first use
<root>/.incoming/<random>/<file>    being fetched, or being removed; emptied when the cache is opened
```

A segment never changes, so neither does its folder. Where the bucket has damaged files of a segment that can be made
again of its records, the folder has what was made of them (`shared.segment.mending`). A folder that somebody uses or
waits for is never removed; of the others the least recently used one goes first. Files that are mapped stay readable
after they were removed. A folder that somebody else has removed (an operator, a cleaner of old files) counts as
removed, and one of whose files some are missing or cut is fetched again; one that cannot be removed stays, is named in
the log, and the next one goes in its place.

Room is made before it is needed:

1. A fetch reserves the bytes of its segment, and least recently used folders are removed until what is here and what
   is reserved fits the budget. So fetches at the same time count each other. Where all that is here is in use the
   budget is exceeded: a read that has begun goes on.
2. The volume may be full in spite of the budget, because others write to it. A fetch that finds it so removes what it
   has written, takes its turn among those that found the same (two that together fill the last room would both fail),
   removes folders of at least the segment's size, and tries again, as long as there were any to remove.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
import uuid
from collections import Counter as Multiset
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Gauge

from shared.errors import Corrupt, Unavailable
from shared.objects.port import ObjectNotFound, ObjectStore, VolumeFull, noticing_full_volume
from shared.process.telemetry import get_logger
from shared.records.indexing import Indexing
from shared.segment.format import RECORDS, SegmentInfo, check_lengths, check_names, verify
from shared.segment.mending import NOTE, Mended, as_held, damaged_files, mend, mended

FETCHED_BYTES: Final = Counter(
    "polychrome_segment_cache_fetched_bytes_total", "Bytes of segments fetched from the bucket."
)
LOOKUPS: Final = Counter("polychrome_segment_cache_lookups_total", "Uses of segments by what the cache had.", ["found"])
CACHED_BYTES: Final = Gauge("polychrome_segment_cache_bytes", "Bytes of segments on the local disk.")
CORRUPT_FETCHES: Final = Counter(
    "polychrome_segment_cache_corrupt_total", "Segments that failed their check after a fetch."
)
FULL_VOLUMES: Final = Counter("polychrome_segment_cache_volume_full_total", "Fetches that found their volume full.")

FETCH_ATTEMPTS: Final = 2
"""Times that a segment is fetched whose files fail their check."""

log = get_logger(__name__)
_ID: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]*", re.ASCII)


@dataclass(slots=True)
class _Held:
    bytes: int
    verified: bool = False


class SegmentCache:
    """A directory of segments with a budget of bytes. For one event loop.

    Invariant: `_held` has exactly the folders below `root` that are whole, least recently used first, and `_held_bytes`
    is what they take. Folders appear and disappear under their name by one rename each, on the event loop, together
    with their entry.
    """

    def __init__(self, objects: ObjectStore, root: Path, bytes_max: int) -> None:
        self._objects = objects
        self._root = root
        self._bytes_max = bytes_max
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._held_bytes = 0
        self._uses: Multiset[str] = Multiset()
        """Number of callers of `hold` that use each segment, or wait for it."""
        self._arriving: dict[str, asyncio.Task[None]] = {}
        self._mended: dict[str, dict[str, str]] = {}
        """The damaged files of the segments that are here mended."""
        self._reserved_bytes = 0
        """Bytes that the fetches under way will take when they are done."""
        self._evicting = asyncio.Lock()
        self._fetching_in_turn = asyncio.Lock()

    async def open(self) -> None:
        """Takes over what an earlier process left, and removes what it left half-done."""
        left = await asyncio.to_thread(_survey, self._root)
        self._held = OrderedDict((name, _Held(size)) for name, size in left)
        self._held_bytes = sum(size for _, size in left)
        CACHED_BYTES.set(self._held_bytes)
        await self._keep_within_budget()

    @contextlib.asynccontextmanager
    async def hold(self, info: SegmentInfo, indexing: Indexing | None = None) -> AsyncIterator[Path]:
        """The folder with the segment's verified files, kept at least until the context ends. With `indexing`, that of
        the collection, a segment of which the bucket has derived files damaged is mended: `as_held` says what files the
        folder has then.

        Raises Corrupt when the bucket has other bytes than the manifest says; Unavailable when the bucket is away, or
        the local volume fails or is full of what is in use.
        """
        if not _ID.fullmatch(info.id):
            raise Corrupt(f"{info.id!r} is not a segment's id")
        self._uses[info.id] += 1
        try:
            held = self._held.get(info.id)
            if held is not None and held.verified and not (self._root / info.id).is_dir():
                self._vanished(info.id)
                held = None
            if held is not None and held.verified:
                held.verified = _has_all_its_bytes(self._root / info.id, info)
            LOOKUPS.labels("no" if held is None else "yes").inc()
            while held is None or not held.verified:
                await self._arrival(info, indexing)
                held = self._held.get(info.id)
            self._held.move_to_end(info.id)
            yield self._root / info.id
        finally:
            self._uses[info.id] -= 1
            if not self._uses[info.id]:
                del self._uses[info.id]
            await self._keep_within_budget()

    def damaged(self, segment_id: str) -> Mapping[str, str]:
        """The files of a segment that the bucket has damaged, each with what is wrong, if it is here mended."""
        return self._mended.get(segment_id, {})

    async def recheck(self, info: SegmentInfo) -> Mapping[str, str]:
        """Reads every byte of a verified folder again. The files that are damaged or missing by now, each with what is
        wrong; then the folder is let go, and the segment fetched again when it is wanted next. What is mapped stays so.
        """
        held = self._held.get(info.id)
        if held is None or not held.verified:
            return {}
        try:
            damaged = await asyncio.to_thread(_damaged_since, self._root / info.id, info)
        except OSError as error:
            raise Unavailable(f"the local disk: {error}") from error
        if damaged and self._held.get(info.id) is held:
            log.error("cached_segment_damaged", segment=info.id, damaged=damaged)
            held.verified = False
            with contextlib.suppress(OSError):  # it is verified, and discarded, before the next use
                await self._discard(info.id)
        return damaged

    async def adopt(self, info: SegmentInfo, directory: Path) -> None:
        """Takes over a folder (of the same file system) with the files of a segment that was just written. Raises
        Unavailable when the local volume fails; the folder is then where it was.
        """
        try:
            directory.rename(self._root / info.id)  # noqa: ASYNC240 (a rename does not wait)
        except OSError as error:
            raise Unavailable(f"the local disk: {error}") from error
        self._take_in(info)
        await self._keep_within_budget()

    async def remove(self, names: Iterable[str]) -> list[str]:
        """Removes the folders of these segments (by id), whatever the budget; returns those that are in use and stay.
        Raises Unavailable when the local disk fails.
        """
        kept: list[str] = []
        async with self._evicting:
            for name in names:
                if name in self._uses or name in self._arriving:
                    kept.append(name)
                elif name in self._held:
                    try:
                        await self._discard(name)
                    except OSError as error:
                        raise Unavailable(f"the local disk: {error}") from error
        return kept

    # ---- arrivals

    async def _arrival(self, info: SegmentInfo, indexing: Indexing | None) -> None:
        """Waits until the segment is here and verified: one verification or fetch, however many callers wait."""
        task = self._arriving.get(info.id)
        if task is None:
            task = self._arriving[info.id] = asyncio.create_task(self._arrive(info, indexing))
            task.add_done_callback(lambda done: self._arrived(info.id, done))
        try:
            await asyncio.shield(task)
        except OSError as error:
            raise Unavailable(f"the local disk: {error}") from error

    def _arrived(self, name: str, task: asyncio.Task[None]) -> None:
        del self._arriving[name]
        if not task.cancelled():
            task.exception()  # taken by the callers that still wait; there may be none left

    async def _arrive(self, info: SegmentInfo, indexing: Indexing | None) -> None:
        held = self._held.get(info.id)
        if held is not None:
            try:
                note = await asyncio.to_thread(_verify_held, self._root / info.id, info)
            except Corrupt as error:
                log.warning("cached_segment_damaged", segment=info.id, error=str(error))
                await self._discard(info.id)
            else:
                held.verified = True
                self._note(info, note)
                return
        size = _bytes_of(info)
        self._reserved_bytes += size
        try:
            await self._keep_within_budget()
            await self._fetch(info, indexing)
        finally:
            self._reserved_bytes -= size
        FETCHED_BYTES.inc(size)

    async def _fetch(self, info: SegmentInfo, indexing: Indexing | None) -> None:
        """Fetches a segment for which room is reserved. Raises Unavailable, Corrupt, OSError."""
        try:
            await self._fetch_checked(info, indexing)
        except VolumeFull as error:
            FULL_VOLUMES.inc()
            log.warning("segment_cache_volume_full", segment=info.id, error=error.message)
            await self._fetch_in_turn(info, indexing)

    async def _fetch_in_turn(self, info: SegmentInfo, indexing: Indexing | None) -> None:
        """Fetches a segment for which the volume had no room, evicting others until there is some."""
        async with self._fetching_in_turn:
            while True:
                freed = await self._evict(_bytes_of(info))
                try:
                    await self._fetch_checked(info, indexing)
                except VolumeFull as error:
                    if not freed:
                        raise self._no_room(info) from error
                else:
                    return

    async def _fetch_checked(self, info: SegmentInfo, indexing: Indexing | None) -> None:
        """Fetches a segment; once more when its files fail their check. When they do so again, it is mended, or raises
        Corrupt.
        """
        for attempt in range(FETCH_ATTEMPTS):
            try:
                await self._fetch_once(info, indexing if attempt + 1 == FETCH_ATTEMPTS else None)
            except Corrupt as error:
                CORRUPT_FETCHES.inc()
                log.error("segment_corrupt", segment=info.id, path=info.path, attempt=attempt, error=str(error))  # noqa: TRY400 (no stack: data is at fault)
                if attempt + 1 == FETCH_ATTEMPTS:
                    raise
            else:
                return

    async def _fetch_once(self, info: SegmentInfo, indexing: Indexing | None) -> None:
        """Downloads into the incoming folder, verifies and with `indexing` mends, renames. Leaves nothing when one of
        these fails.
        """
        check_names(info)
        incoming = self._root / ".incoming" / uuid.uuid4().hex
        try:
            with noticing_full_volume(incoming):
                await asyncio.to_thread(incoming.mkdir, parents=True)
                await self._download(info, incoming)
                note = await asyncio.to_thread(_verify_fetched, incoming, info, indexing)
                incoming.rename(self._root / info.id)
            self._take_in(info, note)
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, incoming, ignore_errors=True)
            raise

    async def _download(self, info: SegmentInfo, directory: Path) -> None:
        downloads = [self._objects.download(info.key(file.name), directory / file.name) for file in info.files]
        for ended in await asyncio.gather(*downloads, return_exceptions=True):
            if ended is not None and not isinstance(ended, ObjectNotFound):
                raise ended

    def _take_in(self, info: SegmentInfo, note: Mended | None = None) -> None:
        size = _bytes_of(info if note is None else note.info)
        self._held[info.id] = _Held(size, verified=True)
        self._held_bytes += size
        CACHED_BYTES.set(self._held_bytes)
        self._note(info, note)

    def _note(self, info: SegmentInfo, note: Mended | None) -> None:
        if note is not None:
            log.warning("segment_mended", segment=info.id, path=info.path, damaged=note.damaged)
            self._mended[info.id] = note.damaged

    def _no_room(self, info: SegmentInfo) -> Unavailable:
        return Unavailable(
            f"the volume {_mount_point(self._root)} is full: segment {info.id} of {_bytes_of(info)} bytes does not fit "
            f"beside the {self._held_bytes} bytes of segments in use below {self._root}"
        )

    # ---- evictions

    async def _keep_within_budget(self) -> None:
        """Removes least recently used folders while there is more here and reserved than the budget allows."""
        await self._discard_while(lambda _: self._held_bytes + self._reserved_bytes > self._bytes_max)

    async def _evict(self, wanted: int) -> int:
        """Removes least recently used folders until `wanted` bytes are free or the rest is in use; how many bytes."""
        return await self._discard_while(lambda freed: freed < wanted)

    async def _discard_while(self, needed: Callable[[int], bool]) -> int:
        """Removes least recently used folders, passing over those that cannot be removed, while `needed` of the bytes
        freed so far is true and there is another folder. Returns the bytes freed.
        """
        freed, irremovable = 0, set[str]()
        async with self._evicting:
            while needed(freed) and (name := self._least_recently_used(irremovable)) is not None:
                size = self._held[name].bytes
                try:
                    await self._discard(name)
                except OSError as error:
                    log.error("cached_segment_not_removed", segment=name, error=str(error))  # noqa: TRY400 (no stack: the disk is at fault)
                    irremovable.add(name)
                else:
                    freed += size
        return freed

    def _least_recently_used(self, passed_over: Set[str]) -> str | None:
        """The least recently used of the folders that nobody uses, waits for or verifies, except those passed over;
        None when there is none.
        """
        kept = (self._uses, self._arriving, passed_over)
        return next((name for name in self._held if not any(name in names for names in kept)), None)

    async def _discard(self, name: str) -> None:
        """Removes a folder and its entry; the entry alone when the folder has vanished. Raises OSError when the folder
        cannot be removed: the entry then stays.
        """
        folder, doomed = self._root / name, self._root / ".incoming" / uuid.uuid4().hex
        try:
            doomed.parent.mkdir(exist_ok=True)
            folder.rename(doomed)
        except FileNotFoundError:
            if folder.exists():
                raise
            self._vanished(name)
            return
        self._drop(name)
        await asyncio.to_thread(shutil.rmtree, doomed, ignore_errors=True)

    def _vanished(self, name: str) -> None:
        log.warning("cached_segment_vanished", segment=name)
        self._drop(name)

    def _drop(self, name: str) -> None:
        self._held_bytes -= self._held.pop(name).bytes
        self._mended.pop(name, None)
        CACHED_BYTES.set(self._held_bytes)


def _has_all_its_bytes(folder: Path, info: SegmentInfo) -> bool:
    """Whether the files have their lengths. Cleaners of old files remove single files as well as folders."""
    try:
        check_lengths(folder, as_held(folder, info))
    except Corrupt:
        return False
    return True


def _verify_held(folder: Path, info: SegmentInfo) -> Mended | None:
    """Reads every byte of a folder that an earlier process left. The note, if the segment was mended. Raises
    Corrupt.
    """
    verify(folder, as_held(folder, info))
    return mended(folder)


def _damaged_since(folder: Path, info: SegmentInfo) -> dict[str, str]:
    """The files of a folder that are not any more what they were when it was verified, each with what is wrong."""
    try:
        return damaged_files(folder, as_held(folder, info))
    except Corrupt as error:  # the note of what was mended
        return {NOTE: error.message}


def _verify_fetched(folder: Path, info: SegmentInfo, indexing: Indexing | None) -> Mended | None:
    """Reads every byte of the files that were fetched, and makes the damaged ones again, if `indexing` says how. The
    note, if that was needed. Raises Corrupt, which names the records if they are damaged.
    """
    damaged = damaged_files(folder, info)
    if not damaged:
        return None
    if indexing is None or RECORDS in damaged:
        name = RECORDS if RECORDS in damaged else next(iter(damaged))
        raise Corrupt(f"segment {info.id}: {name} {damaged[name]} in the bucket", info.key(name))
    return mend(folder, info, indexing, damaged)


def _bytes_of(info: SegmentInfo) -> int:
    return sum(file.bytes for file in info.files)


def _mount_point(folder: Path) -> Path:
    """The mount point of the volume that holds this folder."""
    path = folder.resolve()
    while not os.path.ismount(path):
        path = path.parent
    return path


def _survey(root: Path) -> list[tuple[str, int]]:
    """Whole folders with their sizes, least recently changed first. Makes the root, empties the incoming folder."""
    incoming = root / ".incoming"
    incoming.mkdir(parents=True, exist_ok=True)
    for path in incoming.iterdir():  # the folder itself stays: a full volume may have no room for another one
        shutil.rmtree(path, ignore_errors=True)
    folders = [path for path in root.iterdir() if path.is_dir() and _ID.fullmatch(path.name)]
    folders.sort(key=lambda path: path.stat().st_mtime)
    return [(path.name, sum(file.stat().st_size for file in path.iterdir())) for path in folders]
