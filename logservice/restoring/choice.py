"""The state that a collection is restored to, once Redis was lost or went back. Pure.

Whatever is chosen is of one moment: a batch or a transaction is in it on all shards, or on none.
`logservice.restoring.evidence` gathers the facts, `logservice.restoring.reconcile` carries the choice out.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from shared.cluster.placement import Layout
from shared.log.state import Pointer
from shared.manifest.model import Manifest
from shared.manifest.roots import Root
from shared.records.model import FIRST_POSITION

StoredManifest = tuple[Manifest, Pointer]
"""A manifest in the bucket, with the pointer that commits it."""


class Taken(enum.StrEnum):
    """The kinds of states that a collection may be restored to."""

    LOG = "log"
    """Redis' own state: its manifests, and its log after them."""
    ROOT = "root"
    """The manifests that the newest root names."""
    MANIFEST = "manifest"
    """The newest manifest of its only shard."""
    TAIL = "tail"
    """Manifests in the bucket, and the log there behind them (`logservice.restoring.bucket_tails`)."""
    MANIFESTS = "manifests"
    """The newest manifests of its shards, which may not be of one moment."""


@dataclass(frozen=True, slots=True)
class OwnState:
    """Redis' state of a collection, one pointer per shard of its layout. `whole`: its log is whole behind the manifests
    that `begins_of_log` gives, and those of them that Redis alone knows are in the bucket with all files. Below
    `gaps_end` its log lacks positions that no witness gave back (`logservice.healing.put_back`), which no chain shows.
    `epoch` is the one whose history it is the beginning of: a later one than Redis says when Redis came back as it was
    before a restoration that went on with its log. `as_found` are its epoch and head as they were in Redis, before
    anything was put back.
    """

    epoch: int
    head: int
    layout: Layout
    pointers: Sequence[Pointer | None]
    whole: bool = False
    gaps_end: int = FIRST_POSITION
    as_found: tuple[int, int] = (0, FIRST_POSITION)

    @property
    def continued(self) -> tuple[int, int]:
        """Its epoch in Redis, and the head up to which it has no gap but those that manifests cover."""
        epoch, head = self.as_found
        return epoch, head if self.gaps_end > FIRST_POSITION else max(head, self.head)


@dataclass(frozen=True, slots=True)
class StoredState:
    """The bucket's share of a collection: the newest root that is complete; and of each shard of `layout` the
    newest manifest, unless the root names those of several shards. `latest` are these in any case, complete or not,
    and where there is none since the newest root, those that it names, be it one with log: that is `logged`, and
    never `root`. `beyond` are, of several shards with a root, the newest manifests again, None where there is none
    since the root or it is not complete. `layout` is the root's, or what the catalog says where there is none.
    `furthest` is the highest position, exclusive, that any manifest of the collection covers. `versions_passed`
    manifests at most were committed after that one and cannot be read. `dimension` is what the manifests say, None:
    nothing. `damaged` says by name what is wrong with each stored thing because of which an older root or manifest
    is taken.
    """

    layout: Layout
    root: Root | None = None
    newest: Sequence[StoredManifest | None] = ()
    latest: Sequence[Pointer | None] = ()
    beyond: Sequence[StoredManifest | None] = ()
    logged: Root | None = None
    furthest: int = FIRST_POSITION
    versions_passed: int = 0
    dimension: int | None = None
    damaged: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """The state that a collection gets: manifests of one moment, one per shard of its layout, and with `Taken.LOG` the
    log after them. Everything below `covered[shard]` is there. At `position` the manifests meet.
    """

    taken: Taken
    layout: Layout
    pointers: list[Pointer | None]
    covered: list[int]
    position: int
    continues: tuple[int, int] | None = field(default=None, compare=False)
    """With `Taken.LOG`, what the root of the new epoch says (`shared.manifest.roots`)."""


def history_epoch(found: tuple[int, int], root: Root | None) -> int:
    """The epoch whose history a state in Redis is the beginning of; `found` are the epoch and the head that it has."""
    epoch, head = found
    if root is not None and root.continues is not None and root.continues[0] == epoch and head <= root.continues[1]:
        return root.epoch
    return epoch


def choose(own: OwnState | None, stored: StoredState) -> Choice:
    """The state that the collection is restored to. `own` is None when Redis has none of it.

    The moment of a state is an epoch and a position: the root's; of a single shard its newest manifest's; of Redis its
    own epoch and head. "Reaches as far": its moment is not before the bucket's, nor its layout.

    ```text
    Redis' own log                   shards    root    taken
    whole, reaches as far            any       any     LOG, behind the manifests of `begins_of_log`
    whole, does not reach as far     as below
    not whole, or no state           as below
                                     several   there   ROOT
                                     one       any     MANIFEST: the newest of the root's epoch or a later one; the
                                                       root's, where the bucket has none such
                                     several   none    MANIFESTS: the collection is one of 0.1.0, or a fork, in its
                                                       first round
    ```

    A manifest of an earlier epoch than the root's that the root does not name is never taken: the restoration that
    wrote the root gave it up.
    """
    bucket, moment = _of_bucket(stored)
    if own is None or not own.whole or (own.epoch, own.head) < moment or own.layout.first < bucket.layout.first:
        return bucket
    pointers = begins_of_log(own, stored)
    covers = [_covers(pointer) for pointer in pointers]
    reach = max(own.head, covers[0]) if is_one_moment(covers) else own.head
    return Choice(Taken.LOG, own.layout, pointers, [reach] * own.layout.count, min(covers), own.continued)


def begins_of_log(own: OwnState, stored: StoredState) -> list[Pointer | None]:
    """The manifests, one per shard, behind which Redis' own log goes on: of each shard the later one of its own and of
    the root's (of a single shard, the newest).

    Those of several shards that were written since the root, in Redis' epoch, come before these when the state is of
    one moment with them: a batch may be in the manifest of one shard, and on another one in the log alone. So either
    they meet at a position; or the log has all from where the first of them ends to where the last one does.
    """
    bucket, _ = _of_bucket(stored)
    if own.layout != bucket.layout:
        return list(own.pointers)
    pointers = [later(*both) for both in zip(own.pointers, bucket.pointers, strict=True)]
    if not stored.beyond:
        return pointers
    since = [found[1] if found and found[0].epoch == own.epoch else None for found in stored.beyond]
    newest = [later(*both) for both in zip(pointers, since, strict=True)]
    covers = [_covers(pointer) for pointer in newest]
    log_reaches = own.gaps_end <= min(covers) and max(covers) <= own.head
    return newest if log_reaches or is_one_moment(covers) else pointers


def known_epoch(own: int, cluster: int, stored: StoredState) -> int:
    """The epoch of a state of which Redis says `own`, in a cluster that is in the epoch `cluster` there. Every state is
    of the cluster's epoch before that is opened, or was made since. So one of an earlier epoch than the bucket's, which
    the cluster was opened in, has lost it.
    """
    manifests = [found[0].epoch for found in [*stored.newest, *stored.beyond] if found]
    roots = [root.epoch for root in (stored.root, stored.logged) if root is not None]
    bucket = max([*manifests, *roots], default=0)
    return cluster if own < bucket <= cluster else own


def is_one_moment(covers: Sequence[int]) -> bool:
    """Whether manifests that cover these positions, one per shard, meet."""
    return len(set(covers)) == 1


def _of_bucket(stored: StoredState) -> tuple[Choice, tuple[int, int]]:
    """The state that the bucket alone would give, and its moment."""
    root, layout = stored.root, stored.layout
    if root is not None and layout.count > 1:
        covered = [root.position] * layout.count
        return Choice(Taken.ROOT, layout, root.pointers, covered, root.position), (root.epoch, root.position)
    pointers = [found[1] if found else None for found in stored.newest]
    covered = [_covers(pointer) for pointer in pointers]
    epoch = max((found[0].epoch for found in stored.newest if found), default=0)
    if layout.count > 1:
        position = max(covered)
        return Choice(Taken.MANIFESTS, layout, pointers, covered, position), (epoch, position)
    moment = (epoch, covered[0])
    if root is not None and moment < (root.epoch, root.position):
        # Up to its position nothing more is to be had: log there that the bucket has was given up with the root.
        pointers, moment, covered = root.pointers, (root.epoch, root.position), [root.position]
    return Choice(Taken.MANIFEST, layout, pointers, covered, covered[0]), moment


def later(one: Pointer | None, other: Pointer | None) -> Pointer | None:
    """The one of two manifests of a shard, of one chain, that covers more."""
    if one is None or other is None:
        return one or other
    return other if (other.covers, other.version) > (one.covers, one.version) else one


def _covers(pointer: Pointer | None) -> int:
    return pointer.covers if pointer else FIRST_POSITION
