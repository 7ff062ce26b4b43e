"""The amounts of a shard: records and logical bytes (`shared.tenancy.stored`) of its manifest and its log. Pure."""

from __future__ import annotations

from typing import NamedTuple

from shared.log.state import ShardState
from shared.manifest.model import Manifest
from shared.segment.format import RECORDS
from shared.tenancy.stored import StoredSums


class ManifestAmounts(NamedTuple):
    """The content of a shard's manifest: its version, the records that are alive, and their logical bytes. `readable`
    is false when the manifest could not be read, and the amounts are older ones.
    """

    version: int
    records: int
    bytes: int
    readable: bool = True


NO_MANIFEST = ManifestAmounts(0, 0, 0)


def amounts_of(manifest: Manifest) -> ManifestAmounts:
    """The records of a manifest that are alive, and the bytes of them: of each segment's records file the part of its
    rows that are alive.
    """
    size = 0
    for segment in manifest.segments:
        info = segment.info
        records = sum(file.bytes for file in info.files if file.name == RECORDS)
        size += records * segment.live // info.rows if info.rows else 0
    return ManifestAmounts(manifest.version, manifest.rows, size)


def shard_sums(state: ShardState, manifest: ManifestAmounts) -> StoredSums:
    """The amounts of one shard: what its manifest has, and the log's part that no manifest has. While some of that is
    compacted and not yet trimmed, all of it counts.
    """
    ops, size = (state.ops_backlog, state.bytes_backlog) if state.uncompacted else (0, 0)
    return StoredSums(manifest.records + ops, manifest.bytes + size, 0, ops, size, 0 if manifest.readable else 1)
