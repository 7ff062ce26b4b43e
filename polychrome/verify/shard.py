"""Proving one shard in the bucket: its manifests, their chain, their segments, their digests.

Beside a running cluster, compactions and garbage collection go on. So what looks damaged is looked at once more, with
the pointer and the manifests of then: what no manifest needs any more is no damage.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
from pyroaring import BitMap

from polychrome.verify.model import Finding, Ledger
from polychrome.verify.segment import SegmentProof, prove_segment
from shared.catalog.damage import DamageKind
from shared.errors import Corrupt
from shared.history.sealed_log import decode_sealed
from shared.log.state import Pointer
from shared.manifest.model import Manifest, decode_as, hash_of
from shared.objects.keys import condemned_key, manifest_key, parse_log_key, parse_manifest_key, shard_prefix
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.concurrency import map_concurrently
from shared.records.digest import MODULUS, to_hex, total
from shared.segment.format import RECORDS, SegmentInfo
from shared.vectors.arrays import Mask

SEGMENTS_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class ShardPlace:
    """A shard to be proved. `pointer` asks for its committed manifest, None when Redis cannot be asked; `rooted` are
    the manifests that the collection's newest root names, by version, with their hashes.
    """

    collection: str
    shard: int
    pointer: Callable[[], Awaitable[Pointer | None]] | None
    rooted: Mapping[int, str]


@dataclass(slots=True)
class _Manifests:
    """The manifests of a shard: those that can be read, with their hashes; those that cannot, and why. `newest` is the
    version that queries read, `needed` are it and what the newest root names, `lineage` these and what they continue.
    """

    readable: dict[int, tuple[Manifest, str]] = field(default_factory=dict)
    unreadable: dict[int, str] = field(default_factory=dict)
    newest: set[int] = field(default_factory=set)
    needed: set[int] = field(default_factory=set)
    lineage: set[int] = field(default_factory=set)

    def named(self, versions: Iterable[int]) -> dict[str, SegmentInfo]:
        """The segments that these manifests name, by their paths."""
        found = [self.readable[version][0] for version in versions if version in self.readable]
        return {ref.info.path: ref.info for manifest in found for ref in manifest.segments}


class ShardProver:
    """Proves the shards of one bucket. `chosen` says of which segments, by their paths, the files are read."""

    def __init__(self, objects: ObjectStore, scratch: Path, ledger: Ledger, chosen: Callable[[str], bool]) -> None:
        self._objects = objects
        self._scratch = scratch
        self._ledger = ledger
        self._chosen = chosen

    async def prove(self, place: ShardPlace) -> None:
        """Notes in the ledger what is wrong with the shard. Raises Unavailable."""
        findings = await self._look(place, None)
        if not findings:
            return
        suspected = {finding.name for finding in findings}
        again = await self._look(place, suspected)
        self._ledger.add(finding for finding in again if finding.name in suspected)

    async def _look(self, place: ShardPlace, only: set[str] | None) -> list[Finding]:
        """Looks at the shard as it is now; with `only`, of its segments at those that have objects among them."""
        pointer = await place.pointer() if place.pointer is not None else None
        prefix = shard_prefix(place.collection, place.shard)
        sizes = {info.key: info.bytes async for info in self._objects.list(prefix)}
        manifests = await self._read(place, sizes)
        expected = {**place.rooted, **({pointer.version: pointer.hash} if pointer is not None else {})}
        findings = [*_missing(place, manifests, expected), *await self._prove_sealed(place, sizes, only)]
        _trace(manifests, place, pointer)
        findings += [
            _finding(
                place,
                manifest_key(place.collection, place.shard, version),
                what,
                version in manifests.needed,
                expected.get(version, ""),
            )
            for version, what in manifests.unreadable.items()
        ]
        if only is None:
            self._note(prefix, sizes, manifests)
        proofs = await self._prove_segments(manifests, only)
        for path, proof in proofs.items():
            findings += _of_segment(place, manifests, path, proof)
        return findings + list(_wrong_digests(place, manifests, proofs))

    async def _read(self, place: ShardPlace, sizes: Mapping[str, int]) -> _Manifests:
        found = _Manifests()
        for key in sizes:
            parsed = parse_manifest_key(key)
            if parsed is None:
                continue
            version = parsed[2]
            try:
                data = await self._objects.get(key)
                self._ledger.read(len(data))
                manifest = decode_as(data, place.collection, place.shard, version)
                for ref in manifest.segments:
                    ref.bitmap()
                found.readable[version] = manifest, hash_of(data)
            except ObjectNotFound:
                continue  # collected since it was listed
            except Corrupt as error:
                found.unreadable[version] = error.message
        return found

    def _note(self, prefix: str, sizes: Mapping[str, int], manifests: _Manifests) -> None:
        """Counts what there is, and notes what nothing names."""
        self._ledger.counts["shards"] += 1
        self._ledger.counts["manifests"] += len(manifests.readable) + len(manifests.unreadable)
        named = manifests.named(manifests.readable)
        self._ledger.named_elsewhere(path for path in named if not path.startswith(prefix))
        wanted = {info.key(file.name) for info in named.values() for file in info.files}
        wanted |= {condemned_key(path) for path in named}
        orphans: dict[str, tuple[int, int]] = {}
        for key, size in sizes.items():
            if key not in wanted and parse_manifest_key(key) is None and parse_log_key(key) is None:
                path = key.rpartition("/")[0]
                name = path if path not in named and "/segments/" in path else key
                objects, before = orphans.get(name, (0, 0))
                orphans[name] = objects + 1, before + size
        for name, (objects, size) in orphans.items():
            self._ledger.orphan(name, objects, size)

    async def _prove_sealed(self, place: ShardPlace, keys: Iterable[str], only: set[str] | None) -> list[Finding]:
        """Proves the sealed log objects."""
        found: list[Finding] = []
        for key in keys:
            sealed = parse_log_key(key)
            if sealed is None or (only is not None and key not in only):
                continue
            try:
                data = await self._objects.get(key)
                self._ledger.read(len(data))
                self._ledger.counts["sealed log objects"] += only is None
                await asyncio.to_thread(decode_sealed, sealed, data)
            except ObjectNotFound:
                continue  # collected since it was listed
            except Corrupt as error:
                found.append(_finding(place, key, error.message, current=True))
        return found

    async def _prove_segments(self, manifests: _Manifests, only: set[str] | None) -> dict[str, SegmentProof]:
        def is_wanted(info: SegmentInfo) -> bool:
            if only is None:
                return self._chosen(info.path)
            return any(info.key(file.name) in only for file in info.files)

        wanted = [info for info in manifests.named(manifests.lineage).values() if is_wanted(info)]

        async def prove(info: SegmentInfo) -> SegmentProof:
            proof = await prove_segment(self._objects, info, self._scratch, self._ledger.read)
            if only is None:
                self._ledger.counts["segments"] += 1
                self._ledger.counts["records"] += info.rows
            return proof

        proofs = await map_concurrently(prove, wanted, at_once=SEGMENTS_AT_ONCE)
        return {info.path: proof for info, proof in zip(wanted, proofs, strict=True)}


def _missing(place: ShardPlace, manifests: _Manifests, expected: Mapping[int, str]) -> Iterable[Finding]:
    """Notes the manifests that are missing or others. `expected` are those that there must be, with their hashes."""
    for version, hash_ in expected.items():
        key = manifest_key(place.collection, place.shard, version)
        manifest, found = manifests.readable.get(version, (None, ""))
        if version in manifests.unreadable:
            manifests.needed.add(version)
        elif manifest is None:
            yield _finding(place, key, "is missing", current=True, checksum=hash_)
        elif found != hash_:
            yield _finding(place, key, "is not the one that was committed", current=True, checksum=hash_)


def _trace(manifests: _Manifests, place: ShardPlace, pointer: Pointer | None) -> None:
    """Finds out which manifests are needed, and which those continue. Without a pointer the highest version that can be
    read counts, and so does one above it that cannot: it may be the committed one.
    """
    if pointer is not None:
        manifests.newest.add(pointer.version)
    elif place.pointer is None and manifests.readable:
        latest = max(manifest.epoch for manifest, _ in manifests.readable.values())
        highest = max(version for version, (manifest, _) in manifests.readable.items() if manifest.epoch == latest)
        manifests.newest.add(highest)
        manifests.needed |= {version for version in manifests.unreadable if version > highest}
    elif place.pointer is None:
        manifests.needed |= set(manifests.unreadable)
    heads = manifests.newest | {version for version in place.rooted if version in manifests.readable}
    manifests.needed |= heads
    for head in heads:
        version = head
        while version in manifests.readable and version not in manifests.lineage:
            manifests.lineage.add(version)
            parent = manifests.readable[version][0].parent
            if parent is None or manifests.readable.get(parent.version, (None, ""))[1] != parent.hash:
                break  # collected; its name may have been taken since by a slow compactor
            version = parent.version


def _finding(place: ShardPlace, name: str, what: str, current: bool, checksum: str = "") -> Finding:
    found = Finding.of(name, what, current=current, collection=place.collection, shard=place.shard)
    return msgspec.structs.replace(found, checksum=checksum)


def _of_segment(place: ShardPlace, manifests: _Manifests, path: str, proof: SegmentProof) -> Iterable[Finding]:
    """The findings about a segment."""
    info = manifests.named(manifests.lineage)[path]
    for name, what in proof.damaged.items():
        # A root is for restorations, and those can do without what is derived.
        current = path in manifests.named(manifests.needed if name == RECORDS else manifests.newest)
        checksum = next((file.checksum for file in info.files if file.name == name), "")
        finding = _finding(place, info.key(name), what, current, checksum)
        if name == RECORDS:
            finding = msgspec.structs.replace(finding, lost_rows=proof.lost_rows, lost_ids=proof.lost_ids)
        yield finding


def _wrong_digests(place: ShardPlace, manifests: _Manifests, proofs: Mapping[str, SegmentProof]) -> Iterable[Finding]:
    """The manifests whose digest is not the sum over their live records, as far as all of these were read."""
    for version in sorted(manifests.lineage & manifests.readable.keys()):
        manifest, _ = manifests.readable[version]
        rows = digest = 0
        for ref in manifest.segments:
            proof = proofs.get(ref.info.path)
            if proof is None or proof.digests is None:
                break
            live = _live(ref.bitmap(), ref.info.rows)
            rows, digest = rows + int(live.sum()), digest + total(proof.digests[live])
        else:
            if (rows, to_hex(digest % MODULUS)) != (manifest.rows, manifest.digest):
                what = f"says {manifest.rows} records of digest {manifest.digest}; its segments have {rows} of another"
                current = version in manifests.needed
                yield Finding(manifest.key, DamageKind.MANIFEST, what, current, place.collection, place.shard)


def _live(dead: BitMap, rows: int) -> Mask:
    mask = np.ones(rows, np.bool_)
    mask[np.fromiter(dead, np.int64, len(dead))] = False
    return mask
