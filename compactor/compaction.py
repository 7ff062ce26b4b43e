"""One compaction of one shard, from the log to a committed manifest.

    step        what is done                                              after a crash behind it
    claimed     a job is leased                                           the lease expires, the job is found again
    read        the newest manifest and its segments are here             nothing happened
    folded      the log after it is folded over them                      nothing happened
    built       the new segment is written and proven, in scratch         scratch is emptied at the next start
    uploaded    its files are in the bucket, under a name of its own      garbage, collected after the grace period
    created     the manifest exists                                       whoever finds it completes it, or loses to it
    committed   the pointer in Redis names it                             everything happened

Publishing takes two conditional writes, and a manifest counts only when both succeeded: creating the object, which one
of any number of racing writers does, and moving the pointer from exactly the manifest that the work started from. So no
lock is needed, a lease only saves double work, and a slow compactor that believes it still has one can harm nobody.

A manifest that exists and is not pointed to is completed before new work starts (its author died between the two
writes) and again when creating fails (its author may be alive; both then set the same pointer, which is the same
commit).
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import enum
import shutil
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Histogram
from pyroaring import BitMap

from compactor.build import Built, Source, build
from compactor.cancellation import CancellationToken, in_cancellable_thread, in_thread
from compactor.checkpoints import Checkpoints, Step
from compactor.fold import Fold, Superseded, fold
from compactor.policy import Part, plan
from compactor.proof import prove
from compactor.seeds import borrows
from shared.errors import Corrupt, Gone
from shared.log.log import Log
from shared.log.state import Pointer, ShardState
from shared.manifest.commits import CommitNumbers
from shared.manifest.model import Manifest, ParentRef, SegmentRef, segment_path
from shared.manifest.settle import settle
from shared.manifest.store import ManifestStore, verify_present
from shared.objects.port import ObjectStore
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.records.indexing import Indexing
from shared.segment.cache import SegmentCache
from shared.segment.reader import open_segment
from shared.segment.segment_set import SegmentSet
from shared.segment.writer import GraphParams
from shared.vectors.space import Space

log = get_logger(__name__)

COMPACTIONS: Final = Counter("polychrome_compactor_compactions", "Compactions by what came of them.", ["ending"])
OPERATIONS: Final = Counter("polychrome_compactor_operations", "Operations of the log that were compacted.")
GRAPH_INSERTIONS: Final = Counter("polychrome_compactor_graph_insertions", "Rows added to graphs.")
UNPROVEN: Final = Counter("polychrome_compactor_unproven", "Compactions refused because their digest did not prove.")
STEP_SECONDS: Final = Histogram(
    "polychrome_compactor_step_seconds",
    "Time to reach a step from the one before.",
    ["step"],
    buckets=(0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
)


class Ending(enum.StrEnum):
    """What came of one compaction."""

    NOTHING = "nothing"
    """The log has nothing after the newest manifest."""
    PUBLISHED = "published"
    """A manifest was published that covers the whole log as it was."""
    PARTIAL = "partial"
    """A manifest was published; the log had more than one compaction takes."""
    COMPLETED = "completed"
    """Somebody's unfinished manifest was published; the log after it is still to do."""
    LOST = "lost"
    """Somebody else published first."""


@dataclass(frozen=True, slots=True)
class Effort:
    """What a compaction may use: threads to build a graph, bytes of the log to take at once."""

    threads: int
    fold_bytes: int


@dataclass(frozen=True, slots=True)
class _Old:
    """Where a compaction starts from."""

    state: ShardState
    manifest: Manifest | None
    sources: list[Source]

    def stack(self) -> SegmentSet:
        return SegmentSet([source.segment for source in self.sources], [source.dead for source in self.sources])

    def after(self, killed: dict[int, BitMap]) -> list[Source]:
        """The sources with the rows that die now."""
        return [
            dataclasses.replace(source, dead=source.dead | killed[number]) if number in killed else source
            for number, source in enumerate(self.sources)
        ]


@dataclass(frozen=True, slots=True)
class _Product:
    """What a compaction made, proven and yet to be published. `segments` is the manifest's list."""

    built: Built | None
    segments: list[SegmentRef]
    rows: int
    digest: str


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
        effort: Effort,
        written_by: str,
    ) -> None:
        self._log = shard_log
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._commits = CommitNumbers(objects)
        self._cache = cache
        self._building = building
        self._checkpoints = checkpoints
        self._clock = clock
        self._effort = effort
        self._written_by = written_by

    async def compact(self, collection: str, shard: int, token: CancellationToken | None = None) -> Ending:
        """One compaction. Raises Gone (deleted), Corrupt (nothing was published), Unavailable (try later), and
        Abandoned when the token was cancelled.
        """
        token = token or CancellationToken()
        try:
            ending = await self._compact(_Progress(self._checkpoints, self._clock, token, collection, shard))
        except Superseded as error:
            log.info("superseded", collection=collection, shard=shard, reason=error.message)
            ending = Ending.LOST
        COMPACTIONS.labels(ending).inc()
        return ending

    async def _compact(self, progress: _Progress) -> Ending:
        collection, shard = progress.collection, progress.shard
        [state] = await self._log.states([(collection, shard)])
        if state is None or state.deleted:
            raise Gone(f"collection {collection} was deleted")
        building = await self._borrows(collection, state)
        if not state.uncompacted and not building:
            return Ending.NOTHING
        settled = await settle(self._objects, self._log.commit, collection, shard, state.pointer)
        if not isinstance(settled, int):
            log.info("another compactor's manifest", collection=collection, shard=shard, completed=settled is not None)
            return Ending.COMPLETED if settled else Ending.LOST
        async with self._opened(collection, shard, state) as old, self._folder() as folder:
            await progress.reached(Step.READ)
            folded = await fold(
                self._log, collection, shard, state.pointer, old.stack(), state.dimension,
                self._effort.fold_bytes, progress.check,
            )  # fmt: skip
            if not folded.operations and not building:
                return Ending.NOTHING
            await progress.reached(Step.FOLDED)
            product = await in_cancellable_thread(progress.token, self._make, progress, old, folded, folder)
            await progress.reached(Step.BUILT)
            await self._upload(product.built)
            await progress.reached(Step.UPLOADED)
            return await self._publish(progress, old, folded, product, settled)

    async def _borrows(self, collection: str, state: ShardState) -> bool:
        """Whether the shard is being built and has to get segments of its own, be there something in the log or not."""
        if not state.building or state.pointer is None:
            return False
        return borrows(await self._manifests.load(collection, state.number, state.pointer))

    @contextlib.asynccontextmanager
    async def _opened(self, collection: str, shard: int, state: ShardState) -> AsyncIterator[_Old]:
        """The committed manifest and its segments, fetched and verified, held until the end."""
        async with contextlib.AsyncExitStack() as stack:
            manifest = await self._manifests.load(collection, shard, state.pointer) if state.pointer else None
            refs = manifest.segments if manifest else []
            folders = [await stack.enter_async_context(self._cache.hold(ref.info)) for ref in refs]
            sources = await in_thread(open_sources, refs, folders)
            yield _Old(state, manifest, sources)

    @contextlib.asynccontextmanager
    async def _folder(self) -> AsyncIterator[Path]:
        """A new folder to build in, gone afterwards unless the cache has taken it over. No thread may be at work in it
        then.
        """
        folder = self._building / uuid.uuid4().hex
        try:
            yield folder
        finally:
            await in_thread(shutil.rmtree, folder, ignore_errors=True)

    def _make(self, progress: _Progress, old: _Old, folded: Fold, folder: Path) -> _Product:
        """Plans, builds and proves. Takes long: for a thread."""
        sources = old.after(folded.killed)
        planned = plan([_part(source) for source in sources], folded.tail.num_rows)
        segment_id = f"{_version(old.manifest) + 1:08d}-{uuid.uuid4().hex}"
        path = segment_path(progress.collection, progress.shard, segment_id)
        params = _graph_params(old.state, self._effort.threads)
        indexing = Indexing.of(old.state.fixed)
        built = build(folder, segment_id, path, sources, planned, folded.tail, params, progress.check, indexing)
        progress.check()
        try:
            rows, digest = prove(old.manifest, folded, sources, planned, built)
        except Corrupt:
            UNPROVEN.inc()
            raise
        refs = [SegmentRef.of(sources[number].segment.info, sources[number].dead) for number in planned.kept]
        if built is not None:
            refs.append(SegmentRef.of(built.info, built.dead))
            GRAPH_INSERTIONS.inc(built.inserted_into_graph)
        return _Product(built, refs, rows, digest)

    async def _upload(self, built: Built | None) -> None:
        """The segment, and the number that must stand in the bucket before the manifest does."""
        uploads = [self._number()]
        if built is not None:
            folder, path = built.directory, built.info.path
            uploads += [self._objects.put(f"{path}/{file.name}", folder / file.name) for file in built.info.files]
        for ended in await asyncio.gather(*uploads, return_exceptions=True):
            if ended is not None:
                raise ended

    async def _number(self) -> None:
        await self._commits.leave(await self._log.draw_commit())

    async def _still_there(self, built: Built | None) -> None:
        """A process that was stopped for long enough comes back to uploads that were collected as garbage."""
        try:
            if built is not None:
                await verify_present(self._objects, built.info)
        except Corrupt as error:
            raise Superseded(error.message) from error

    async def _publish(self, progress: _Progress, old: _Old, folded: Fold, product: _Product, version: int) -> Ending:
        """The two conditional writes. What was uploaded is garbage unless both succeed."""
        collection, shard, expected = progress.collection, progress.shard, old.state.pointer
        await self._still_there(product.built)
        manifest = Manifest(
            collection=collection,
            shard=shard,
            version=version,
            parent=ParentRef(expected.version, expected.hash) if expected else None,
            covers=folded.covers,
            dimension=folded.dimension or 0,
            segments=product.segments,
            rows=product.rows,
            digest=product.digest,
            written_by=f"{self._written_by} {uuid.uuid4().hex}",
            created_s=self._clock.now(),
        )
        pointer = await self._manifests.create(manifest)
        if pointer is None:
            settled = await settle(self._objects, self._log.commit, collection, shard, expected)
            return Ending.COMPLETED if isinstance(settled, Pointer) else Ending.LOST
        await progress.reached(Step.CREATED)
        # Again, now that whoever collects garbage can see the manifest: see logservice/garbage.py.
        await self._still_there(product.built)
        if not await self._log.commit(collection, shard, expected, pointer):
            return Ending.LOST
        await progress.reached(Step.COMMITTED)
        if product.built is not None:
            await self._cache.adopt(product.built.info, product.built.directory)
        OPERATIONS.inc(folded.operations)
        log.info(
            "published", collection=collection, shard=shard, version=manifest.version, covers=manifest.covers,
            rows=manifest.rows, segments=len(manifest.segments), operations=folded.operations,
        )  # fmt: skip
        return Ending.PUBLISHED if folded.complete else Ending.PARTIAL


class _Progress:
    """The steps of one compaction: timed, told to the checkpoints, and each a chance to give up."""

    def __init__(
        self, checkpoints: Checkpoints, clock: Clock, token: CancellationToken, collection: str, shard: int
    ) -> None:
        self.collection = collection
        self.shard = shard
        self.token = token
        self.check = token.check
        self._checkpoints = checkpoints
        self._clock = clock
        self._since = clock.monotonic()

    async def reached(self, step: Step) -> None:
        STEP_SECONDS.labels(step).observe(self._clock.monotonic() - self._since)
        await self._checkpoints.reached(step, self.collection, self.shard)
        self._since = self._clock.monotonic()
        if step not in (Step.CREATED, Step.COMMITTED):  # behind these, finishing is quicker than having it finished
            self.check()


def _version(manifest: Manifest | None) -> int:
    return manifest.version if manifest else 0


def open_sources(refs: Sequence[SegmentRef], folders: Sequence[Path]) -> list[Source]:
    return [
        Source(folder, open_segment(folder, ref.info, graph=False), ref.bitmap())
        for ref, folder in zip(refs, folders, strict=True)
    ]


def _part(source: Source) -> Part:
    info = source.segment.info
    return Part(info.rows, len(source.dead), sum(file.bytes for file in info.files), info.graph)


def _graph_params(state: ShardState, threads: int) -> GraphParams:
    return GraphParams(
        space=Space(state.fixed["space"]),
        ef_construction=int(state.fixed["ef_construction"]),
        max_neighbors=int(state.fixed["max_neighbors"]),
        threads=threads,
    )
