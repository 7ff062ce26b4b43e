"""Publishing what a compaction made.

Publishing takes two conditional writes, and a manifest counts only when both succeeded: creating the object, which one
of any number of racing writers does, and moving the pointer from exactly the manifest that the work started from. So no
lock is needed, a lease only saves double work, and a slow compactor that believes it still has one can harm nobody.

A manifest that exists and is not pointed to is completed before new work starts (its author died between the two
writes) and again when creating fails (its author may be alive; both then set the same pointer, which is the same
commit).
"""

from __future__ import annotations

import asyncio
import uuid

from compactor.apply_log import AppliedLog, Superseded
from compactor.build import Built
from compactor.merge import Merged, Parent
from shared.errors import Corrupt, Gone
from shared.log.log import Log
from shared.log.state import Pointer, ShardState
from shared.manifest.commits import CommitNumbers
from shared.manifest.model import Manifest, ParentRef
from shared.manifest.settle import settle
from shared.manifest.store import ManifestStore, verify_present
from shared.objects.port import ObjectStore
from shared.process.clock import Clock


class Publisher:
    """Uploads segments, creates manifests and commits them. `written_by` names the process in manifests."""

    def __init__(self, shard_log: Log, objects: ObjectStore, clock: Clock, written_by: str) -> None:
        self._log = shard_log
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._commits = CommitNumbers(objects)
        self._clock = clock
        self._written_by = written_by

    async def settle(self, collection: str, state: ShardState) -> Pointer | int | None:
        """Finishes what dead compactors left of the shard: the pointer that is now committed, or the version that the
        next manifest takes when there was nothing to finish, or None when another compactor was faster.
        """
        return await settle(self._objects, self._log.commit, collection, state.number, state.pointer, state.epoch)

    async def upload(self, built: Built | None) -> None:
        """Uploads the new segment, and the number of the commit, which must stand in the bucket before the manifest
        does. What is uploaded is garbage unless a manifest that names it is committed.
        """
        uploads = [self._leave_number()]
        if built is not None:
            folder, path = built.directory, built.info.path
            uploads += [self._objects.put(f"{path}/{file.name}", folder / file.name) for file in built.info.files]
        for ended in await asyncio.gather(*uploads, return_exceptions=True):
            if ended is not None:
                raise ended

    async def create(
        self, collection: str, shard: int, version: int, parent: Parent, applied: AppliedLog, merged: Merged
    ) -> Pointer | None:
        """Creates the manifest: the pointer to be committed, or None when there is a manifest of this version. Raises
        Superseded, Gone.
        """
        await self._verify_uploaded(merged.built)
        await self._verify_not_restarted(collection, parent.state)
        before = parent.state.pointer
        return await self._manifests.create(
            Manifest(
                collection=collection,
                shard=shard,
                version=version,
                parent=ParentRef(before.version, before.hash) if before else None,
                covers=applied.covers,
                dimension=applied.dimension or 0,
                segments=merged.segments,
                rows=merged.rows,
                digest=merged.digest,
                written_by=f"{self._written_by} {uuid.uuid4().hex}",
                created_s=self._clock.now(),
                epoch=parent.state.epoch,
            )
        )

    async def commit(self, collection: str, begun: ShardState, pointer: Pointer, built: Built | None) -> bool:
        """Moves the pointer from the parent's manifest to the created one; whether that is the committed one now.
        `begun` is the state from which the compaction began.
        """
        # Again, now that the garbage collector can see the manifest: see logservice/garbage/plan.py.
        await self._verify_uploaded(built)
        return await self._log.commit(collection, begun.number, begun.pointer, pointer, begun.epoch)

    async def _leave_number(self) -> None:
        await self._commits.leave(await self._log.draw_commit())

    async def _verify_not_restarted(self, collection: str, begun: ShardState) -> None:
        """Raises Superseded when Redis has restarted since the compaction began: it may have lost what was read from
        its log, and clients may have acted on that. When it restarts after this, and has lost what was read, it has
        lost the number of the commit, too, and the bucket's shows it.
        """
        [now] = await self._log.states([(collection, begun.number)])
        if now is None or now.deleted:
            raise Gone(f"collection {collection} was deleted")
        if (now.floor, now.epoch) != (begun.floor, begun.epoch):
            raise Superseded("Redis has restarted since the compaction began")

    async def _verify_uploaded(self, built: Built | None) -> None:
        """Raises Superseded when the upload is gone: it was collected as garbage while this process was stopped."""
        try:
            if built is not None:
                await verify_present(self._objects, built.info)
        except Corrupt as error:
            raise Superseded(error.message) from error
