"""Segments of which the bucket has damaged files, by the registry of damage: compared with the bucket, and rewritten.

A compactor often has a whole copy of what the bucket has damaged, because it has written it. So it does not go by what
its cache has, but looks at every file in the bucket that was reported. What turns out to be whole is cleared.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from pathlib import Path

from compactor.cancellation import in_thread
from shared.catalog.damage import SEGMENT_KINDS, Damages
from shared.errors import Unavailable
from shared.manifest.model import Manifest
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.telemetry import get_logger
from shared.segment.format import FileInfo, SegmentInfo, describe

log = get_logger(__name__)


class DamagedSegments:
    """Finds and clears what the registry of damage has of segments. `scratch` is a folder to compare files in."""

    def __init__(self, damages: Damages, objects: ObjectStore, scratch: Path) -> None:
        self._damages = damages
        self._objects = objects
        self._scratch = scratch

    async def of(self, manifest: Manifest | None) -> set[str]:
        """The ids of the manifest's segments of which files were reported and are damaged in the bucket indeed. Clears
        what was reported of other files for this shard, which were replaced meanwhile. Raises Unavailable.
        """
        if manifest is None or not await self._damages.names():
            return set()
        reported = {damage.name: damage for damage in await self._damages.all() if damage.kind in SEGMENT_KINDS}
        files = {ref.info.key(file.name): (ref.info, file) for ref in manifest.segments for file in ref.info.files}
        shard = (manifest.collection, manifest.shard)
        damaged = set[str]()
        settled = [
            name
            for name, damage in reported.items()
            if name not in files and (damage.collection, damage.shard) == shard
        ]
        for key in reported.keys() & files.keys():
            info, file = files[key]
            if await self._is_whole(key, file):
                settled.append(key)
            else:
                damaged.add(info.id)
        if settled:
            log.info("damage_cleared", objects=settled)
            await self._damages.clear(settled)
        return damaged

    async def replaced(self, segments: Sequence[SegmentInfo]) -> None:
        """These segments were rewritten: the shard's manifest does not name them any more. That is committed, so an
        entry that cannot be cleared now stays until a later comparison.
        """
        names = [info.key(file.name) for info in segments for file in info.files]
        if not names:
            return
        log.info("damaged_segments_rewritten", segments=[info.path for info in segments])
        try:
            await self._damages.clear(names)
        except Unavailable as error:
            log.warning("damage_not_cleared", segments=[info.path for info in segments], error=error.message)

    async def _is_whole(self, key: str, file: FileInfo) -> bool:
        folder = self._scratch / uuid.uuid4().hex
        path = folder / file.name
        try:
            await asyncio.to_thread(folder.mkdir)
            await self._objects.download(key, path)
            return await in_thread(describe, path) == file
        except ObjectNotFound:
            return False
        finally:
            await in_thread(_remove, path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.parent.rmdir()
