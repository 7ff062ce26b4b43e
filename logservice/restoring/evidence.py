"""Gathers what `logservice.restoring.choice` decides on: what the bucket has of a collection, and whether Redis' log is
whole.

A bucket that was copied while it was written to (a backup) may have a root without a manifest that it names, or a
manifest without a file: a copy is not of one moment. So the newest root, or the newest manifest of a single shard,
counts once all that it names is there; until then the one before it does.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace

from logservice.restoring.choice import OwnState, StoredManifest, StoredState, begins_of_log, history_epoch
from shared.catalog import Collection
from shared.cluster.placement import Layout
from shared.errors import Corrupt
from shared.log.log import Log
from shared.log.state import Pointer
from shared.manifest.model import Manifest
from shared.manifest.newest import newest_manifest
from shared.manifest.roots import Root, RootStore
from shared.manifest.store import ManifestStore, verify_records_present
from shared.objects.port import ObjectStore
from shared.process.telemetry import get_logger
from shared.records.model import FIRST_POSITION

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class HealedLog:
    """A collection's log as healing left it: `head` is the one before it, None where nothing was done; below `gaps_end`
    the log has gaps since.
    """

    head: int | None = None
    gaps_end: int = FIRST_POSITION


class Evidence:
    """Looks at the bucket and at the log. Everything raises Unavailable."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._manifests = ManifestStore(objects)
        self._roots = RootStore(objects)

    async def stored(self, collection_id: str, layout: Layout) -> StoredState:
        """The bucket's share of a collection; `layout` is the one that the catalog knows. What cannot be read is named
        in it, and what came before is taken.
        """
        damaged: dict[str, str] = {}
        logged = await self._newest_with_log(collection_id)
        root, manifests = await self._newest_root(collection_id, damaged)
        last = logged or root
        present, layout = layout, last.shards if last else layout
        found = {
            shard: await newest_manifest(self._objects, collection_id, shard, last.epoch if last else 0)
            for shard in sorted({*layout.numbers, *present.numbers})
        }
        named = last.pointers if last else [None] * layout.count
        latest = [
            newest.found[1] if newest.found else pointer
            for newest, pointer in zip([found[shard] for shard in layout.numbers], named, strict=True)
        ]
        newest: list[StoredManifest | None] = []
        beyond: list[StoredManifest | None] = []
        if root is not None and layout.count > 1:
            beyond = [await self._if_complete(found[shard].found) for shard in layout.numbers]
        else:
            newest = [await self._complete_or_older(found[shard].found, damaged) for shard in layout.numbers]
            manifests = [each[0] for each in newest if each] or manifests
            damaged |= {name: what for shard in layout.numbers for name, what in found[shard].damaged.items()}
        return StoredState(
            layout=layout,
            root=root,
            newest=newest,
            latest=latest,
            beyond=beyond,
            logged=logged,
            furthest=max((each.found[1].covers for each in found.values() if each.found), default=FIRST_POSITION),
            versions_passed=max(each.versions_passed for each in found.values()),
            dimension=next((manifest.dimension for manifest in manifests if manifest.dimension), None),
            damaged=damaged,
        )

    async def own(self, collection: Collection, stored: StoredState, log_: Log, healed: HealedLog) -> OwnState:
        """Redis' state of a collection, and whether that is whole. `healed` says what was done to its log before."""
        found = collection.epoch, collection.head if healed.head is None else healed.head
        own = OwnState(
            epoch=history_epoch(found, stored.root),
            head=collection.head,
            layout=collection.layout,
            pointers=collection.pointers,
            whole=True,
            gaps_end=healed.gaps_end,
            as_found=found,
        )
        complete = {found[1] for found in [*stored.newest, *stored.beyond] if found}
        complete |= {pointer for pointer in stored.root.pointers if pointer} if stored.root else set()
        for shard, start in zip(collection.layout.numbers, begins_of_log(own, stored), strict=True):
            covers = start.covers if start else FIRST_POSITION
            there = start is None or start in complete or await self.is_complete(collection.id, shard, start)
            if not there or not await log_.is_whole(collection.id, shard, covers):
                own = replace(own, whole=False)
                log.warning("log_not_whole", collection=collection.id, shard=shard, covers=covers)
        return own

    async def _newest_root(self, collection_id: str, damaged: dict[str, str]) -> tuple[Root | None, list[Manifest]]:
        """The newest root all of whose manifests are complete, and these. When no root is complete the newest that can
        be read: what it lacks is reported by the readers of its shards. None when none can be read: then the newest
        manifests of the shards are taken, of whatever moment, and the damage is named.
        """
        keys = await self._roots.keys(collection_id)
        readable: Root | None = None
        for key in reversed(keys):
            try:
                root = await self._roots.load(key)
                if root.with_log:
                    continue
                readable = readable or root
                return root, [
                    await self._complete(collection_id, named.shard, named.pointer) for named in root.manifests
                ]
            except Corrupt as error:
                damaged[error.name or key] = error.message
                log.error("root_passed_over", key=key, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
        return readable, []

    async def _newest_with_log(self, collection_id: str) -> Root | None:
        """The newest root, if it is one with log and can be read."""
        keys = await self._roots.keys(collection_id)
        with suppress(Corrupt):  # `_newest_root` reports it
            root = await self._roots.load(keys[-1]) if keys else None
            return root if root is not None and root.with_log else None
        return None

    async def _if_complete(self, found: StoredManifest | None) -> StoredManifest | None:
        """A manifest, if the records that it names are there."""
        with suppress(Corrupt):  # it is named by those that read it
            if found is not None:
                await self._verify_records(found[0])
            return found
        return None

    async def _complete_or_older(self, newest: StoredManifest | None, damaged: dict[str, str]) -> StoredManifest | None:
        """A shard's newest manifest when the records that it names are there, else the first one before it of which
        that is so; when there is none, the newest.
        """
        found = newest
        while found is not None:
            try:
                await self._verify_records(found[0])
            except Corrupt as error:
                damaged[error.name or found[0].key] = error.message
                log.error("manifest_passed_over", key=found[0].key, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
                found = await self._parent(found[0])
            else:
                return found
        return newest

    async def _parent(self, manifest: Manifest) -> StoredManifest | None:
        """The manifest that this one continues; None when it is not there any more, or cannot be read."""
        try:
            return await self._manifests.parent(manifest)
        except Corrupt as error:
            log.error("manifest_passed_over", key=manifest.key, message=error.message)  # noqa: TRY400 (no stack: data is at fault)
            return None

    async def is_complete(self, collection_id: str, shard: int, pointer: Pointer) -> bool:
        """Whether the manifest that the pointer names is there with the records that it names."""
        try:
            await self._complete(collection_id, shard, pointer)
        except Corrupt as error:
            log.warning("own_manifest_missing", collection=collection_id, shard=shard, message=error.message)
            return False
        return True

    async def _complete(self, collection_id: str, shard: int, pointer: Pointer) -> Manifest:
        """The manifest that the pointer names. Raises Corrupt unless it is there with the records that it names."""
        manifest = await self._manifests.load(collection_id, shard, pointer)
        await self._verify_records(manifest)
        return manifest

    async def _verify_records(self, manifest: Manifest) -> None:
        """Raises Corrupt unless the records of all segments are there in full length."""
        for segment in manifest.segments:
            await verify_records_present(self._objects, segment.info)
