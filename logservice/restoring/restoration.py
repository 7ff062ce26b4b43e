"""Rules, without effects, of what a Redis that lost something gets back, and what may be missing then.
`logservice.restoring.reconcile` gathers the facts and carries them out.

Why the heads are safe: an append is refused when more than `limits.BACKLOG_OPS_CEILING` operations are not trimmed, and
only what a manifest covers is trimmed. Positions are dense but for the gaps that restorations leave, and a snapshot has
the head as it was after the last of them, but for `limits.OWED_RAISES_MAX` that a bucket without writes kept out of it
(`logservice.restoring.owed_snapshot`). So the head was at most max(newest manifest's covers, snapshot's head) + the
ceiling; and where manifests are damaged that may have been committed after the newest whole one, each may have covered
the ceiling more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from logservice.restoring.choice import Choice, StoredState, Taken, is_one_moment
from shared import limits
from shared.catalog.image import CatalogImage, CollectionImage
from shared.log.state import Entry
from shared.manifest.roots import Root, make_root
from shared.records.model import FIRST_POSITION


@dataclass(frozen=True, slots=True)
class MissingRange:
    """The possible loss of a collection: the operations from `covered[shard]` on of each shard, up to `head`
    (exclusive), the first position that will be handed out now. Positions below `seen` were surely handed out. `taken`
    says what it was restored to; `one_moment`, whether that is of one moment on all shards: then nothing is half there.
    `damaged` says what is wrong with each stored thing, by its name, because of which more is missing.
    """

    collection: str
    name: str
    covered: list[int]
    seen: int
    head: int
    taken: str
    one_moment: bool
    damaged: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Restoration:
    """A collection's restoration: to which state, and the head that it goes on from."""

    collection: str
    name: str
    choice: Choice
    seen: int
    head: int
    stored: StoredState
    entries: Mapping[int, Sequence[Entry]] = field(default_factory=dict)
    """By shard, the log to put behind the manifests."""

    @property
    def missing(self) -> MissingRange:
        """The loss of the collection."""
        choice = self.choice
        one_moment = choice.taken is not Taken.MANIFESTS
        return MissingRange(
            self.collection,
            self.name,
            choice.covered,
            self.seen,
            self.head,
            choice.taken.value,
            one_moment,
            dict(self.stored.damaged),
        )

    @property
    def keeps_log(self) -> bool:
        """Whether Redis' own log of the collection goes on."""
        return self.choice.taken is Taken.LOG

    @property
    def log_begins(self) -> int:
        """The position from which on some shard's restored state has not everything."""
        return min(self.choice.covered)

    @property
    def unproven(self) -> list[str]:
        """The keys of the manifests that are taken up by their checksum alone: no pointer or root has their hash."""
        taken = set(self.choice.pointers) - set(self.stored.root.pointers if self.stored.root else [])
        manifests = filter(None, [*self.stored.newest, *self.stored.beyond])
        found = [manifest for manifest, pointer in manifests if pointer in taken]
        return [manifest.key for manifest in found if manifest.proves_itself]

    def restored(self, image: CollectionImage) -> CollectionImage:
        """The collection's image with its restored layout and head, and with its dimension if a manifest knows it."""
        layout = self.choice.layout
        dimension = image.dimension or self.stored.dimension
        return msgspec.structs.replace(
            image, head=max(image.head, self.head), dimension=dimension, shards=(layout.first, layout.count)
        )

    def new_root(self, epoch: int, written_by: str, created_s: float) -> Root | None:
        """The root of the new epoch, which gives up whatever the epochs before have left: it names the state, or, where
        Redis' own log goes on, manifests of one moment in it. None for a collection of several shards that goes on and
        never had a root: nothing of it was compacted, or its first round will end with one.
        """
        choice = self.choice
        layout, pointers, position = choice.layout, choice.pointers, choice.position
        if choice.taken is Taken.TAIL:
            reach = choice.covered[0]
            return make_root(self.collection, epoch, reach, layout, pointers, written_by, created_s, with_log=True)
        if choice.taken is Taken.LOG and layout.count > 1:
            root = self.stored.root
            if root is None:
                return None
            covers = [pointer.covers if pointer else FIRST_POSITION for pointer in pointers]
            if layout != root.shards or not is_one_moment(covers) or position < root.position:
                layout, pointers, position = root.shards, root.pointers, root.position
        return make_root(
            self.collection, epoch, position, layout, pointers, written_by, created_s, continues=choice.continues
        )


def restoration_of(
    collection: str,
    name: str,
    choice: Choice,
    stored: StoredState,
    snapshot_head: int,
    own_head: int = 0,
    entries: Mapping[int, Sequence[Entry]] | None = None,
) -> Restoration:
    """The restoration of a collection to the state that was chosen. The heads are those that the snapshot and Redis
    know of it, 0 where they know none; `entries` is the log to put behind the manifests, by shard.
    """
    seen = max(*choice.covered, stored.furthest, snapshot_head, own_head)
    head = seen + (1 + stored.versions_passed + limits.OWED_RAISES_MAX) * limits.BACKLOG_OPS_CEILING
    return Restoration(collection, name, choice, seen, head, stored, entries or {})


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
    lost: Sequence[CollectionImage] = ()
    """Collections of which Redis had the row, and no whole state."""

    @property
    def went_back(self) -> bool:
        signs = (self.heads_behind, self.newer, self.switched, self.lost_commits, self.older_epoch, self.lost)
        return any(map(bool, signs))


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


def heads_of_unread(now: CatalogImage, snapshot: CatalogImage | None, unread: Iterable[str]) -> dict[str, int]:
    """For each collection in `unread` a head beyond every position that may have been handed out, of a Redis that went
    back: nothing but its head can be read of it in Redis, and its manifests were not looked at.
    """
    known = {collection.id: collection.head for collection in snapshot.collections} if snapshot else {}
    heads = {collection.id: max(collection.head, known.get(collection.id, 0)) for collection in now.collections}
    beyond = (1 + limits.OWED_RAISES_MAX) * limits.BACKLOG_OPS_CEILING
    return {collection_id: heads[collection_id] + beyond for collection_id in unread if collection_id in heads}


def raised_heads(now: CatalogImage) -> dict[str, int]:
    """For each collection a head beyond every position that may have been handed out, of a Redis that shows no sign of
    having gone back.
    """
    return {collection.id: collection.head + limits.BACKLOG_OPS_CEILING for collection in now.collections}
