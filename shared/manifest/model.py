"""Manifests: the immutable objects that say what a shard consists of.

```text
<collection>/<shard>/manifests/<version, 20 digits>.json      JSON, created once, never replaced
<collection>/<shard>/segments/<segment id>/<file>             named by manifests through their full path
```

A manifest's *hash* is the xxh3-128 of its bytes, in hex. A *pointer* (version, hash, covers) in Redis names the
committed manifest of a shard. Its *checksum* is its last member: the xxh3-128, in hex, of the same bytes with an empty
checksum. It proves the manifest to a reader who has no pointer. Manifests of format 1 have neither checksum nor epoch.

Invariants
1. A manifest names its parent, the committed manifest that it continues, by version and hash; the first has none. So
   the newest manifest proves the whole chain. Usually the parent is the version before; versions in between were given
   up.
2. A manifest exists only after every file it names does.
3. A manifest is committed when it exists *and* the pointer names it. Between the two its compactor may die: the next
   compactor that finds it completes it (`shared.manifest.settle`), and no other manifest of that version can be
   published, because the name is taken. A manifest that must not be completed (it cannot be read, its files are
   missing, it continues another one) is given up: the next version is taken. A compactor that is wrong about that loses
   the commit, since only one of two can move the pointer from the parent that both have.
4. `covers` (exclusive) never shrinks along the chain: the manifest is the effect of every operation of the shard before
   it.
5. `epoch` never shrinks along the chain: it is that of the shard's state when the work on the manifest began.
6. `digest` is the sum of `shared.records.digest` over the live records, `rows` their number.
"""

from __future__ import annotations

import base64
from typing import Final

import msgspec
import xxhash
from pyroaring import BitMap

from shared.errors import Corrupt
from shared.log.state import Pointer
from shared.objects.keys import manifest_key
from shared.segment.format import SegmentInfo

FORMAT: Final = 2
FORMATS_READ: Final = (1, FORMAT)


class ParentRef(msgspec.Struct, frozen=True):
    """The committed manifest that another one continues."""

    version: int
    hash: str


class SegmentRef(msgspec.Struct, frozen=True):
    """A segment of a manifest with its tombstones: the rows that are dead, as a serialised roaring bitmap in base64,
    and how many they are.
    """

    info: SegmentInfo
    tombstones: str
    dead: int

    @staticmethod
    def of(info: SegmentInfo, dead: BitMap) -> SegmentRef:
        return SegmentRef(info=info, tombstones=base64.b64encode(dead.serialize()).decode(), dead=len(dead))

    def bitmap(self) -> BitMap:
        """The dead rows. Raises Corrupt when they cannot be read or do not fit the segment."""
        try:
            found: BitMap = BitMap.deserialize(base64.b64decode(self.tombstones, validate=True))
        except ValueError as error:
            raise Corrupt(f"the tombstones of segment {self.info.id} cannot be read: {error}") from error
        if len(found) != self.dead or (found and found.max() >= self.info.rows):
            raise Corrupt(f"the tombstones of segment {self.info.id} do not fit it")
        return found

    @property
    def live(self) -> int:
        return self.info.rows - self.dead


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one shard as of the position `covers`. `dimension` is 0 while the collection has none (then there
    are no segments). `rows` is how many records are live, `digest` their digest in 32 hex digits. `written_by` names
    the compactor; `created_s` is its clock, in seconds since 1970: shown, never compared. `epoch` is that of the
    shard's state when the work began, 0 in format 1. `checksum` is set in its bytes alone.
    """

    format: int = FORMAT
    collection: str
    shard: int
    version: int
    parent: ParentRef | None
    covers: int
    dimension: int
    segments: list[SegmentRef]
    rows: int
    digest: str
    written_by: str
    created_s: float
    epoch: int = 0
    checksum: str = ""  # the last member: see `_checksum_member`

    def encode(self) -> bytes:
        """The bytes of the manifest's object, checksum included: always the same for equal manifests."""
        if self.format < FORMAT:
            members = msgspec.to_builtins(self)
            del members["epoch"], members["checksum"]
            return msgspec.json.format(msgspec.json.encode(members), indent=1)
        blank = msgspec.json.format(msgspec.json.encode(msgspec.structs.replace(self, checksum="")), indent=1)
        return blank.removesuffix(_checksum_member("")) + _checksum_member(hash_of(blank))

    @property
    def proves_itself(self) -> bool:
        """Whether its bytes have a checksum, which was compared when they were decoded."""
        return self.format >= FORMAT

    @property
    def key(self) -> str:
        """The key of the manifest's object."""
        return manifest_key(self.collection, self.shard, self.version)

    def pointer(self) -> Pointer:
        """The pointer that commits this manifest."""
        return Pointer(version=self.version, hash=hash_of(self.encode()), covers=self.covers)


_MANIFEST: Final = msgspec.json.Decoder(Manifest)


def hash_of(data: bytes) -> str:
    """The hash by which a pointer and a child name a manifest, from its bytes: xxh3-128 in hex."""
    return xxhash.xxh3_128_hexdigest(data)


def decode(data: bytes) -> Manifest:
    """The manifest with these bytes. Raises Corrupt when they are none of this format, or contradict themselves."""
    try:
        manifest = _MANIFEST.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"not a manifest: {error}") from error
    if manifest.format not in FORMATS_READ:
        raise Corrupt(f"a manifest of format {manifest.format}; this build reads {FORMAT}")
    if manifest.format == FORMAT or manifest.checksum:
        _verify_checksum(data, manifest)
    if (manifest.parent.version if manifest.parent else 0) >= manifest.version:
        raise Corrupt(f"manifest {manifest.key} names a parent that is no version before it")
    if sum(segment.live for segment in manifest.segments) != manifest.rows:
        raise Corrupt(f"manifest {manifest.key} does not have the rows it says")
    return msgspec.structs.replace(manifest, checksum="")


def _verify_checksum(data: bytes, manifest: Manifest) -> None:
    member = _checksum_member(manifest.checksum)
    if not data.endswith(member) or hash_of(data.removesuffix(member) + _checksum_member("")) != manifest.checksum:
        raise Corrupt(f"manifest {manifest.key} is damaged: its checksum is another one")


def _checksum_member(checksum: str) -> bytes:
    """The end of a manifest's bytes, from its checksum on."""
    return f'"checksum": "{checksum}"\n}}'.encode()


def decode_as(data: bytes, collection: str, shard: int, version: int) -> Manifest:
    """The manifest with these bytes, found under the key of this version. Raises Corrupt when they are no manifest, or
    that of another key.
    """
    key = manifest_key(collection, shard, version)
    try:
        manifest = decode(data)
    except Corrupt as error:
        raise Corrupt(error.message, key) from error
    if (manifest.collection, manifest.shard, manifest.version) != (collection, shard, version):
        raise Corrupt(f"{key} holds {manifest.key}", key)
    return manifest
