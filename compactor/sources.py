"""Segments that a job reads: fetched into the local cache, verified, held there and mapped into memory."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from compactor.cancellation import in_thread
from shared.manifest.model import SegmentRef
from shared.records.indexing import Indexing
from shared.segment.cache import SegmentCache
from shared.segment.format import SegmentInfo
from shared.segment.mending import as_held
from shared.segment.reader import Segment, open_segment
from shared.vectors.arrays import Mask


@dataclass(frozen=True, slots=True)
class Source:
    """A segment of a manifest: its folder, its content, and the numbers of its dead rows. `info` is what the manifest
    says of it. `damaged`: the bucket has some of its files damaged; then the folder may have others (`segment.info`),
    and the segment must be rewritten, for no manifest may name what the folder has.
    """

    directory: Path
    segment: Segment
    dead: BitMap
    info: SegmentInfo
    damaged: bool = False

    def live_mask(self) -> Mask:
        """The mask of the segment's live rows, bool [rows]."""
        mask = np.ones(self.segment.rows, np.bool_)
        mask[np.fromiter(self.dead, np.int64, len(self.dead))] = False
        return mask

    def live_records(self) -> pa.Table:
        """The live rows, in their order, in the columns of `shared.records.model.record_schema`."""
        return self.all_records().filter(pa.array(self.live_mask()))

    def all_records(self) -> pa.Table:
        """All rows, dead ones included, in the columns of `shared.records.model.record_schema`."""
        return self.segment.records.replace_schema_metadata(None)

    def without(self, rows: BitMap) -> Source:
        """The segment with these rows dead as well."""
        return dataclasses.replace(self, dead=self.dead | rows)


@contextlib.asynccontextmanager
async def open_sources(
    cache: SegmentCache, refs: Sequence[SegmentRef], indexing: Indexing, damaged: Set[str] = frozenset()
) -> AsyncIterator[list[Source]]:
    """The segments that a manifest names, in its order, held in the cache until the context ends; of a collection with
    this indexing. `damaged` are ids of segments that the bucket is known to have damaged files of, whatever the cache
    has. No thread may read them any more then (`compactor.cancellation.in_thread`). Raises Corrupt and Unavailable.
    """
    async with contextlib.AsyncExitStack() as stack:
        folders = [await stack.enter_async_context(cache.hold(ref.info, indexing)) for ref in refs]
        found = damaged | {ref.info.id for ref in refs if cache.damaged(ref.info.id)}
        yield await in_thread(_open, refs, folders, found)


def _open(refs: Sequence[SegmentRef], folders: Sequence[Path], damaged: Set[str]) -> list[Source]:
    return [
        Source(
            folder,
            open_segment(folder, as_held(folder, ref.info), graph=False),
            ref.bitmap(),
            ref.info,
            ref.info.id in damaged,
        )
        for ref, folder in zip(refs, folders, strict=True)
    ]
