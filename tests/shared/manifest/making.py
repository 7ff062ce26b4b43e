"""Manifests of a shard without files, and their pointers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyroaring import BitMap

from shared.log.state import Pointer
from shared.manifest.model import Manifest, ParentRef, SegmentRef
from shared.manifest.newest import newest_manifest
from shared.manifest.store import ManifestStore
from shared.objects.keys import segment_path
from shared.objects.memory import MemoryStore
from shared.objects.port import ObjectStore
from shared.records.digest import MODULUS, record_digests, to_hex, total
from shared.segment.format import FileInfo, SegmentInfo
from shared.segment.writer import write_segment
from shared.vectors.space import Space
from tests.shared.segment.tables import params, table, vectors_of


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


async def proving_manifest(
    objects: MemoryStore, folder: Path, rows: Sequence[int], dead: Sequence[Sequence[int]], **changes: Any
) -> Manifest:
    """A manifest of segments in the bucket, as many as there are in `rows`, with the digest that it should have."""
    refs, digest = [], 0
    for number, (count, dead_rows) in enumerate(zip(rows, dead, strict=True)):
        records = table(vectors_of(count, 8, number), [f"{number}-{row}" for row in range(count)])
        column = record_digests(records)
        records = records.set_column(3, records.schema.field("digest"), column)
        built, name = folder / str(number), f"s{number}"
        info = write_segment(built, name, segment_path("c", 3, name), records, params()).info
        for file in info.files:
            await objects.put(info.key(file.name), built / file.name)
        refs.append(SegmentRef.of(info, BitMap(dead_rows)))
        digest += total(column) - sum(total(column.slice(row, 1)) for row in dead_rows)
    return manifest(segments=refs, digest=to_hex(digest % MODULUS), **changes)


async def created(store: ManifestStore, new: Manifest) -> Pointer:
    """The pointer of a manifest whose version was free."""
    pointer = await store.create(new)
    assert pointer is not None
    return pointer


async def newest(objects: ObjectStore) -> Pointer:
    found = (await newest_manifest(objects, "c", 3)).found
    assert found is not None
    return found[1]
