"""Roots: the immutable objects that say which manifests of a collection's shards are of one moment.

```text
<collection>/roots/<epoch, 10 digits>-<position, 20 digits>.json      JSON, created once, never replaced
```

The shards of a collection are compacted one by one, so their newest manifests cover different positions. A *cut* is a
position at which they all meet, and a root names the manifests there: it is what a lost collection is restored to, with
all of a batch or a transaction in it, or none. The newest root is the one with the highest epoch, and of those the
highest position: a restoration begins a new epoch, and writes a root of it, so whatever earlier epochs left behind
their last root is of no account any more.

Invariants
1. A root exists only after every manifest that it names does.
2. Every shard of `layout` has all operations below `position` in the manifest that the root names for it, or had none
   when the root does not name one. A manifest that covers less than `position` has all the same: its shard had no
   operation in between.
3. Roots of one collection that have the same epoch and position stand for the same records.
4. A root `with_log` is that of a restoration that put log behind the manifests (`logservice.restoring.bucket_tails`).
   Its manifests need not meet: from the end of each to `position` the bucket has the log, as sealed log objects. It is
   of use only with that log; the root before it is what a collection is restored to without.
"""

from __future__ import annotations

from typing import Final

import msgspec
import xxhash

from shared.cluster.placement import Layout
from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.objects.keys import parse_root_key, root_key, roots_prefix
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.records.model import FIRST_POSITION

FORMAT: Final = 1


class RootManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A manifest that a root names, by its shard and by what a pointer says of it."""

    shard: int
    version: int
    hash: str
    covers: int

    @property
    def pointer(self) -> Pointer:
        """The pointer that commits this manifest."""
        return Pointer(self.version, self.hash, self.covers)


class Root(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The manifests of a collection's shards as of `position`. `layout` is its first shard's number and the number of
    shards; `manifests` are those of its shards, ascending, without the shards that have none. `written_by` names the
    writer; `created_s` is its clock, in seconds since the epoch: shown, never compared. `checksum` is the xxh3-128, in
    hex, of the object's bytes with an empty checksum.

    `continues` is there where a restoration went on with Redis' own log: that log's epoch, and the head up to which it
    is the beginning of what the collection is in this root's epoch. A Redis that comes back as it was before that
    restoration, with no later head, has nothing that was given up.
    """

    format: int = FORMAT
    collection: str
    epoch: int
    position: int
    layout: tuple[int, int]
    manifests: list[RootManifest]
    written_by: str
    created_s: float
    checksum: str = ""
    with_log: bool = False
    continues: tuple[int, int] | None = None

    def encode(self) -> bytes:
        """The bytes of the root's object: always the same for equal roots."""
        return _bytes_of(msgspec.structs.replace(self, checksum=self._sum()))

    @property
    def key(self) -> str:
        """The key of the root's object."""
        return root_key(self.collection, self.epoch, self.position)

    @property
    def shards(self) -> Layout:
        """The layout of the shards whose manifests are named."""
        return Layout(*self.layout)

    @property
    def pointers(self) -> list[Pointer | None]:
        """For each shard of the layout the pointer to its manifest, None where it has none."""
        named = {manifest.shard: manifest.pointer for manifest in self.manifests}
        return [named.get(number) for number in self.shards.numbers]

    def stands_for_the_same(self, other: Root) -> bool:
        """Whether both restore a collection to the same records. Of two manifests of a shard that cover the same, one
        may have rewritten the segments of the other.
        """
        return (self.layout, self._covered) == (other.layout, other._covered)

    @property
    def _covered(self) -> dict[int, int]:
        return {manifest.shard: manifest.covers for manifest in self.manifests}

    def _sum(self) -> str:
        return xxhash.xxh3_128_hexdigest(_bytes_of(msgspec.structs.replace(self, checksum="")))

    def check(self) -> None:
        """Raises Corrupt when the root's checksum is wrong, or when it contradicts itself."""
        if self.format != FORMAT:
            raise Corrupt(f"a root of format {self.format}; this build reads {FORMAT}")
        if self.checksum != self._sum():
            raise Corrupt(f"root {self.key} fails its checksum")
        if self.epoch < 0 or self.position < FIRST_POSITION or min(self.layout[0], self.layout[1] - 1) < 0:
            raise Corrupt(f"root {self.key} has an epoch, a position or a layout that there cannot be")
        if self.continues is not None and not 0 <= self.continues[0] < self.epoch:
            raise Corrupt(f"root {self.key} continues an epoch that is none before its own")
        numbers = [manifest.shard for manifest in self.manifests]
        if numbers != sorted(set(numbers)) or not set(numbers) <= set(self.shards.numbers):
            raise Corrupt(f"root {self.key} names manifests of shards {numbers}, its layout is {self.layout}")
        if any(manifest.version < 1 or manifest.covers > self.position for manifest in self.manifests):
            raise Corrupt(f"root {self.key} names a manifest that covers more than the root's position")


_ROOT: Final = msgspec.json.Decoder(Root)


def _bytes_of(root: Root) -> bytes:
    return msgspec.json.format(msgspec.json.encode(root), indent=1)


def make_root(
    collection: str,
    epoch: int,
    position: int,
    layout: Layout,
    pointers: list[Pointer | None],
    written_by: str,
    created_s: float,
    *,
    with_log: bool = False,
    continues: tuple[int, int] | None = None,
) -> Root:
    """The root that names these manifests, one per shard of the layout, None where a shard has none."""
    named = [
        RootManifest(number, pointer.version, pointer.hash, pointer.covers)
        for number, pointer in zip(layout.numbers, pointers, strict=True)
        if pointer is not None
    ]
    return Root(
        collection=collection,
        epoch=epoch,
        position=position,
        layout=(layout.first, layout.count),
        manifests=named,
        written_by=written_by,
        created_s=created_s,
        with_log=with_log,
        continues=continues,
    )


def decode_root(data: bytes, key: str) -> Root:
    """The root with these bytes, found under this key. Raises Corrupt when they are no root, fail their checksum,
    contradict themselves, or belong under another key.
    """
    try:
        root = _ROOT.decode(data)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{key} is not a root: {error}") from error
    root.check()
    if root.key != key:
        raise Corrupt(f"{key} holds {root.key}")
    return root


class RootStore:
    """The roots in one bucket. Its methods raise Unavailable while the bucket is away."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def keys(self, collection: str) -> list[str]:
        """The keys of the collection's roots, from the oldest to the newest."""
        keys = [info.key async for info in self._objects.list(roots_prefix(collection))]
        return sorted(key for key in keys if parse_root_key(key))

    async def load(self, key: str) -> Root:
        """The root under this key. Raises Corrupt when it is missing or cannot be read."""
        try:
            return decode_root(await self._objects.get(key), key)
        except ObjectNotFound:
            raise Corrupt(f"root {key} is missing") from None

    async def newest(self, collection: str) -> Root | None:
        """The newest root of the collection; None when it has none. Raises Corrupt when the newest cannot be read."""
        keys = await self.keys(collection)
        return await self.load(keys[-1]) if keys else None

    async def create(self, root: Root) -> None:
        """Creates the root; one that is there already and stands for the same records is as good. Raises Corrupt when
        another one is there, and UnknownOutcome when it may have been created.
        """
        if await self._objects.create(root.key, root.encode()):
            return
        present = await self.load(root.key)
        if not present.stands_for_the_same(root):
            raise Corrupt(f"root {root.key} is there and stands for other records")
