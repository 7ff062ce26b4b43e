"""The log of one layout, as another layout's streams have it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

import pyarrow as pa

from shared.cluster.placement import Layout
from shared.log.batch import decode_batch, split_batch
from shared.log.rebuild import CopiedEntry
from shared.log.state import Entry


def resplit(entries: Iterable[Entry], layout: Layout) -> dict[int, list[CopiedEntry]]:
    """Entries of whole appends, from all shards, by the shards of `layout`; each operation keeps its position."""
    parts: dict[int, list[CopiedEntry]] = {}
    for (first, end), some in groupby(sorted(entries, key=_append), key=_append):
        batch = _joined([decode_batch(entry.payload) for entry in some])
        for shard, encoded in split_batch(batch, layout).items():
            parts.setdefault(shard, []).extend(
                CopiedEntry(first, end, number == len(encoded), entry) for number, entry in enumerate(encoded, start=1)
            )
    return parts


def _append(entry: Entry) -> tuple[int, int]:
    return entry.first, entry.end


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The parts of one append, ascending by offset: readers take operations in the order of their positions."""
    if len(batches) == 1:
        return batches[0]
    tables = [pa.Table.from_batches([batch]) for batch in batches]
    [joined] = pa.concat_tables(tables, promote_options="default").sort_by("offset").combine_chunks().to_batches()
    return joined
