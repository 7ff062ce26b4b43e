"""A compaction of one shard, from the log to a committed manifest.

```text
step        what is done                                              after a crash behind it
claimed     a job is leased                                           the lease expires, the job is found again
read        the newest manifest and its segments are here             nothing happened
applied     the log after it is applied to them                       nothing happened
built       the new segment is written and proven, in scratch         scratch is emptied at the next start
uploaded    its files are in the bucket, under a name of its own      garbage, collected after the grace period
created     the manifest exists                                       the next compactor completes or overtakes it
committed   the pointer in Redis names it                             everything happened
```

Reading and applying are in `compactor.sources` and `compactor.apply_log`, building and proving in `compactor.merge`,
the rest in `compactor.publish`.
"""

from __future__ import annotations

import contextlib
import enum
import shutil
import uuid
from collections.abc import AsyncIterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import Counter

from compactor.apply_log import AppliedLog, Superseded, apply_log
from compactor.build import Built
from compactor.cancellation import CancellationToken, in_cancellable_thread, in_thread
from compactor.checkpoints import Checkpoints, Step
from compactor.damaged_segments import DamagedSegments
from compactor.initial_manifests import has_foreign_segments
from compactor.merge import Merged, Parent, merge
from compactor.progress import Progress
from compactor.publish import Publisher
from compactor.sources import open_sources
from shared.catalog.damage import Damages
from shared.errors import Gone, Unavailable
from shared.log.log import Log
from shared.log.state import Pointer, ShardState
from shared.manifest.model import Manifest
from shared.manifest.store import ManifestStore
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.records.indexing import Indexing
from shared.segment.cache import SegmentCache
from shared.tenancy.erasure_marks import ErasureMarks

log = get_logger(__name__)

COMPACTIONS: Final = Counter("polychrome_compactor_compactions_total", "Compactions by what came of them.", ["ending"])
OPERATIONS: Final = Counter("polychrome_compactor_operations_total", "Operations of the log that were compacted.")


class Ending(enum.StrEnum):
    """The outcome of a compaction."""

    NOTHING = "nothing"
    """The log has nothing after the newest manifest, or nothing below the cut."""
    PUBLISHED = "published"
    """A manifest was published that covers the whole log as it was, or all of it below the cut."""
    PARTIAL = "partial"
    """A manifest was published; the log had more than one compaction takes."""
    COMPLETED = "completed"
    """Another compactor's unfinished manifest was published; the log after it is still to do."""
    LOST = "lost"
    """Another compactor published first."""


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """The resources that a compaction may use: threads to build a graph, bytes of the log to take at once."""

    threads: int
    fold_bytes: int


class Compactor:
    """Compacts shards. `written_by` names the process in manifests; `building` is a folder of scratch space on the
    file system of the cache.
    """

    def __init__(
        self,
        shard_log: Log,
        objects: ObjectStore,
        cache: SegmentCache,
        building: Path,
        checkpoints: Checkpoints,
        clock: Clock,
        limits: ResourceLimits,
        written_by: str,
        damages: Damages,
        erasures: ErasureMarks,
    ) -> None:
        self._log = shard_log
        self._erasures = erasures
        self._damage = DamagedSegments(damages, objects, building)
        self._manifests = ManifestStore(objects)
        self._publisher = Publisher(shard_log, objects, clock, written_by)
        self._cache = cache
        self._building = building
        self._checkpoints = checkpoints
        self._clock = clock
        self._limits = limits

    async def compact(self, collection: str, shard: int, token: CancellationToken | None = None) -> Ending:
        """Does one compaction. Raises Gone (deleted), Corrupt (nothing was published), Unavailable (try later), and
        Abandoned when the token was cancelled.
        """
        token = token or CancellationToken()
        try:
            ending = await self._compact(Progress(self._checkpoints, self._clock, token, collection, shard))
        except Superseded as error:
            log.info("superseded", collection=collection, shard=shard, reason=error.message)
            ending = Ending.LOST
        COMPACTIONS.labels(ending).inc()
        return ending

    async def _compact(self, progress: Progress) -> Ending:
        collection, shard, check = progress.collection, progress.shard, progress.token.check
        [state] = await self._log.states([(collection, shard)])
        if state is None or state.deleted:
            raise Gone(f"collection {collection} was deleted")
        manifest = await self._manifests.load(collection, shard, state.pointer) if state.pointer else None
        damaged = await self._damage.of(manifest)
        purged = await self._erasures.is_erasing(collection)
        rewrites = bool(damaged) or (purged and manifest is not None and any(ref.dead for ref in manifest.segments))
        rewrites |= state.building and manifest is not None and has_foreign_segments(manifest)
        if not state.compactable and not rewrites:
            return Ending.NOTHING
        settled = await self._publisher.settle(collection, state)
        if not isinstance(settled, int):
            log.info("published_by_another", collection=collection, shard=shard, completed=settled is not None)
            return Ending.COMPLETED if settled else Ending.LOST
        async with self._parent(state, manifest, damaged, purged) as parent, self._scratch() as folder:
            rewrites |= any(source.damaged for source in parent.sources)
            await progress.reached(Step.READ)
            applied = await apply_log(
                self._log, collection, state, parent.segment_set(), state.dimension, self._limits.fold_bytes, check
            )
            if not applied.entries and not rewrites:
                return Ending.NOTHING
            await progress.reached(Step.APPLIED)
            merged = await in_cancellable_thread(
                progress.token, merge, parent, applied, collection, shard, folder, self._limits.threads, check
            )
            await progress.reached(Step.BUILT)
            await self._publisher.upload(merged.built)
            await progress.reached(Step.UPLOADED)
            return await self._publish(progress, parent, applied, merged, settled)

    @contextlib.asynccontextmanager
    async def _parent(
        self, state: ShardState, manifest: Manifest | None, damaged: Set[str], purged: bool
    ) -> AsyncIterator[Parent]:
        """The committed manifest and its segments, which are held until the context ends."""
        refs = manifest.segments if manifest else []
        async with open_sources(self._cache, refs, Indexing.of(state.fixed), damaged) as sources:
            yield Parent(state, manifest, sources, purged)

    @contextlib.asynccontextmanager
    async def _scratch(self) -> AsyncIterator[Path]:
        """A name for a new folder to build in. The folder is removed at the end, unless the cache has taken it over.

        Whatever writes in it has ended by then: the job waits for its threads. A thread of the object store may still
        read from it, for an upload that was cancelled or an attempt that took too long; nothing can end it. That does
        no harm: a file that is open stays whole for its reader, another one is not found, and a store makes an object
        of all of a file or none.
        """
        folder = self._building / uuid.uuid4().hex
        try:
            yield folder
        finally:
            await in_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _publish(
        self, progress: Progress, parent: Parent, applied: AppliedLog, merged: Merged, version: int
    ) -> Ending:
        """The two conditional writes, and what follows them."""
        collection, shard, built = progress.collection, progress.shard, merged.built
        pointer = await self._publisher.create(collection, shard, version, parent, applied, merged)
        if pointer is None:
            settled = await self._publisher.settle(collection, parent.state)
            return Ending.COMPLETED if isinstance(settled, Pointer) else Ending.LOST
        await progress.reached(Step.CREATED)
        if not await self._publisher.commit(collection, parent.state, pointer, built):
            return Ending.LOST
        await progress.reached(Step.COMMITTED)
        if built is not None:
            await self._keep_for_the_next(built)
        await self._damage.replaced([source.info for source in parent.sources if source.damaged])
        OPERATIONS.inc(applied.operations)
        log.info(
            "published", collection=collection, shard=shard, version=version, covers=pointer.covers,
            rows=merged.rows, segments=len(merged.segments), operations=applied.operations,
        )  # fmt: skip
        return Ending.PUBLISHED if applied.complete else Ending.PARTIAL

    async def _keep_for_the_next(self, built: Built) -> None:
        """Gives the new segment to the cache. Without it the next compaction fetches the segment: this one is committed
        and has not failed.
        """
        try:
            await self._cache.adopt(built.info, built.directory)
        except Unavailable as error:
            log.warning("segment_not_cached", segment=built.info.id, error=error.message)
