"""Manifests of a shard without files, and their pointers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyroaring import BitMap

from shared.log.state import Pointer
from shared.manifest.model import Manifest, ParentRef, SegmentRef, segment_path
from shared.manifest.store import ManifestStore
from shared.objects.memory import MemoryStore
from shared.segment.format import FileInfo, SegmentInfo
from shared.vectors.space import Space


def manifest(
    version: int = 1,
    parent: ParentRef | None = None,
    segments: Sequence[SegmentRef] = (),
    covers: int | None = None,
    **changes: Any,
) -> Manifest:
    return Manifest(
        **{
            "collection": "c", "shard": 3, "version": version, "parent": parent, "covers": covers or 10 * version,
            "dimension": 2, "segments": list(segments), "rows": sum(ref.live for ref in segments), "digest": "0" * 32,
            "written_by": "test", "created_s": 1.5, **changes,
        }
    )  # fmt: skip


def segment(name: str = "s1", rows: int = 10, dead: Sequence[int] = ()) -> SegmentRef:
    info = SegmentInfo(
        name, segment_path("c", 3, name), rows, 2, Space.COSINE, False, [FileInfo("records.arrow", 4, "ab")], "a", "z"
    )
    return SegmentRef.of(info, BitMap(dead))


def after(found: Manifest, **changes: Any) -> Manifest:
    pointer = found.pointer()
    return manifest(found.version + 1, ParentRef(pointer.version, pointer.hash), **changes)


async def created(store: ManifestStore, new: Manifest) -> Pointer:
    """The pointer of a manifest whose version was free."""
    pointer = await store.create(new)
    assert pointer is not None
    return pointer


async def newest(store: ManifestStore) -> Pointer:
    found = await store.newest("c", 3)
    assert found is not None
    return found[1]


async def put_files(objects: MemoryStore, ref: SegmentRef) -> None:
    for file in ref.info.files:
        await objects.put(f"{ref.info.path}/{file.name}", b"x" * file.bytes)
