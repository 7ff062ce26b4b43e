"""The batches of entries, each compared with what its entry says of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from shared.errors import Corrupt
from shared.log.batch import decode_batch
from shared.log.state import Entry
from shared.log.verification import DamagedEntry
from shared.records.model import Op


class Decoded(NamedTuple):
    """The batches of the first entries, and what is wrong with the entry after them, if anything is."""

    batches: list[pa.RecordBatch]
    damage: DamagedEntry | None


def decode_entries(collection_id: str, shard: int, entries: Sequence[Entry]) -> Decoded:
    """Decodes the entries of a shard up to the first whose payload is no batch of as many operations as it says, within
    its append.
    """
    batches: list[pa.RecordBatch] = []
    for entry in entries:
        try:
            batch = _decode(entry)
        except Corrupt as error:
            damage = DamagedEntry(collection_id, shard, entry.id, error.message, end=entry.end, fields=entry)
            return Decoded(batches, damage)
        batches.append(batch)
    return Decoded(batches, None)


def _decode(entry: Entry) -> pa.RecordBatch:
    batch = decode_batch(entry.payload)
    if batch.num_rows != entry.count:
        raise Corrupt(f"it has {batch.num_rows} operations, not {entry.count}")
    if not entry.checksum:
        _check_operations(batch, entry.end - entry.first)
    return batch


def _check_operations(batch: pa.RecordBatch, positions: int) -> None:
    """Raises Corrupt unless the operations are of known kinds, within the positions of their append, in their order. Of
    an entry with a checksum that is known.
    """
    ops, offsets, ids = batch.columns[:3]
    if ops.null_count or offsets.null_count or ids.null_count:
        raise Corrupt("it has nulls where there are none")
    if batch.num_rows and int(ops.to_numpy().max()) > max(Op):
        raise Corrupt("it has operations of an unknown kind")
    places = offsets.to_numpy().astype("int64")
    if batch.num_rows and (places[-1] >= positions or bool((places[1:] <= places[:-1]).any())):
        raise Corrupt("its operations are not in order, or not within their append")
