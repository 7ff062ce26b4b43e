"""Rules, without effects, of what a Redis that lost something gets back, and what may be missing then.
`logservice.reconcile` gathers the facts and carries them out.

Why the heads are safe: an append is refused when more than `limits.BACKLOG_OPS_CEILING` operations are not trimmed, and
only what a manifest covers is trimmed. Positions are dense but for the gaps that restorations leave, and a snapshot has
the head as it was after the last of them, but for `limits.OWED_RAISES_MAX` that a bucket without writes kept out of it
(`logservice.owed_snapshot`). So the head was at most max(newest manifest's covers, snapshot's head) + the
ceiling; and where manifests are damaged that may have been committed after the newest whole one, each may have covered
the ceiling more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import msgspec

from shared import limits
from shared.catalog import Collection
from shared.catalog.image import CatalogImage, CollectionImage
from shared.log.state import Pointer
from shared.manifest.newest import NewestManifest
from shared.records.model import FIRST_POSITION


@dataclass(frozen=True, slots=True)
class MissingRange:
    """The possible loss of a collection: the operations from `covered[shard]` on of each shard, up to `head`
    (exclusive), the first position that will be handed out now. Positions below `seen` were surely handed out.
    `damaged` says what is wrong with each stored thing, by its name, because of which more is missing.
    """

    collection: str
    name: str
    covered: list[int]
    seen: int
    head: int
    damaged: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StoredCollection:
    """A collection of a snapshot, with the newest whole manifest that the bucket has of each of its shards."""

    image: CollectionImage
    manifests: list[NewestManifest]

    @property
    def pointers(self) -> list[Pointer | None]:
        return [newest.found[1] if newest.found else None for newest in self.manifests]

    @property
    def damaged(self) -> dict[str, str]:
        """By name, the damage of each stored thing that is damaged, in words."""
        return {name: what for newest in self.manifests for name, what in newest.damaged.items()}

    @property
    def unproven(self) -> list[str]:
        """The keys of those manifests that have only their checksum so far."""
        found = [newest.found[0] for newest in self.manifests if newest.found]
        return [manifest.key for manifest in found if manifest.proves_itself]

    @property
    def covered(self) -> list[int]:
        """For each shard the position up to which (exclusive) the bucket has everything."""
        return [_covered(pointer) for pointer in self.pointers]

    def restored(self) -> CollectionImage:
        """The image with a head that no position handed out has passed, and the dimension if a manifest knows it."""
        passed = max(newest.versions_passed for newest in self.manifests)
        head = max(*self.covered, self.image.head) + (1 + passed + limits.OWED_RAISES_MAX) * limits.BACKLOG_OPS_CEILING
        dimensions = [newest.found[0].dimension for newest in self.manifests if newest.found]
        dimension = self.image.dimension or max(dimensions, default=0) or None
        return msgspec.structs.replace(self.image, head=head, dimension=dimension)

    def missing(self, head: int) -> MissingRange:
        """The loss of the collection if its log is lost. `head` is the restored one."""
        return MissingRange(self.image.id, self.image.name, self.covered, self.image.head, head, self.damaged)


@dataclass(frozen=True, slots=True)
class ShardAhead:
    """A shard whose newest manifest in the bucket is ahead of its pointer in Redis, or may be: `stored` is what the
    bucket has.
    """

    collection: str
    shard: int
    pointer: Pointer | None
    stored: NewestManifest

    @property
    def unproven(self) -> list[str]:
        """The keys of the manifests that are taken up and have only their checksum so far."""
        found = self.stored.found
        taken = found is not None and found[1] == self.newest != self.pointer
        return [found[0].key] if found is not None and taken and found[0].proves_itself else []

    @property
    def newest(self) -> Pointer | None:
        """The later one of the two."""
        found = self.stored.found[1] if self.stored.found else None
        return max(self.pointer, found, key=lambda pointer: pointer.version if pointer else 0)


@dataclass(frozen=True, slots=True)
class RollbackSigns:
    """The signs that Redis came back older than it was."""

    heads_behind: int
    """Collections whose head in Redis is lower than the snapshot's."""
    newer: CatalogImage | None
    """The snapshot, if it is newer than Redis' catalog: then rows are taken from it. An older one has rows that were
    deleted since.
    """
    switched: list[CollectionImage]
    """Collections of the snapshot that have a later layout there than in Redis."""
    lost_commits: int
    """Numbers of commits in the bucket that Redis has not drawn."""
    older_epoch: bool
    """Whether the snapshot is of a later epoch: of one that Redis has lost, or of a restoration that did not end."""

    @property
    def went_back(self) -> bool:
        return bool(self.heads_behind or self.newer or self.switched or self.lost_commits or self.older_epoch)


def signs_of_rollback(
    now: CatalogImage, snapshot: CatalogImage | None, commits_in_bucket: int, commits_drawn: int
) -> RollbackSigns:
    """Compares Redis (`now`, and the number of the commit that it drew last) with the bucket (the newest snapshot, and
    the highest number of a commit there).
    """
    known = {collection.id: collection for collection in snapshot.collections} if snapshot else {}
    present = {collection.id: collection for collection in now.collections}
    return RollbackSigns(
        heads_behind=sum(
            collection.head < known[collection.id].head for collection in now.collections if collection.id in known
        ),
        newer=snapshot if snapshot and (snapshot.epoch, snapshot.changes) > (now.epoch, now.changes) else None,
        switched=[
            collection
            for collection in known.values()
            if collection.id in present and collection.layout.first > present[collection.id].layout.first
        ],
        lost_commits=max(0, commits_in_bucket - commits_drawn),
        older_epoch=snapshot is not None and snapshot.epoch > now.epoch,
    )


def raised_heads(now: CatalogImage) -> dict[str, int]:
    """For each collection a head beyond every position that may have been handed out, of a Redis that shows no sign of
    having gone back.
    """
    return {collection.id: collection.head + limits.BACKLOG_OPS_CEILING for collection in now.collections}


def rolled_back(collection: Collection, ahead: Iterable[ShardAhead], snapshot_head: int) -> MissingRange:
    """The possible loss of a collection that is there, in a Redis that went back: the operations that no manifest
    has, up to a head beyond every position that may have been handed out. `snapshot_head` is 0 where none is known.
    """
    mine = [shard_ahead for shard_ahead in ahead if shard_ahead.collection == collection.id]
    newest = {shard_ahead.shard: shard_ahead.newest for shard_ahead in mine}
    passed = max((shard_ahead.stored.versions_passed for shard_ahead in mine), default=0)
    damaged = {name: what for shard_ahead in mine for name, what in shard_ahead.stored.damaged.items()}
    shards = zip(collection.layout.numbers, collection.pointers, strict=True)
    covered = [_covered(newest.get(shard, pointer)) for shard, pointer in shards]
    seen = max(*covered, collection.head, snapshot_head)
    head = seen + (1 + passed + limits.OWED_RAISES_MAX) * limits.BACKLOG_OPS_CEILING
    return MissingRange(collection.id, collection.name, covered, seen, head, damaged)


def heads_of(missing: Sequence[MissingRange]) -> dict[str, int]:
    """The head that each of the collections gets."""
    return {lost.collection: lost.head for lost in missing}


def _covered(pointer: Pointer | None) -> int:
    return pointer.covers if pointer else FIRST_POSITION
