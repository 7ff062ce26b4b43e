"""The proof that a compaction dropped and invented nothing.

Two independent sums must agree before anything is published:

```text
what the log says     digest of the old manifest + digest of the tail's live records - digest of the rows it deletes
what the files say    digest of every live row of the segments that the new manifest is going to name
```

The new segment counts by its content: it is opened from the files that were written, and the digest of every live row
is computed anew and compared with the one stored beside it. Kept segments count by their digest columns (their files
were verified against checksums when they were fetched). The numbers of records must agree in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from pyroaring import BitMap

from compactor.apply_log import AppliedLog
from compactor.build import Built
from compactor.policy import Plan
from compactor.sources import Source
from shared.errors import Corrupt
from shared.manifest.model import Manifest
from shared.records.digest import MODULUS, as_bytes, record_digests, to_hex, total
from shared.segment.reader import open_segment


def prove(
    parent: Manifest | None, applied: AppliedLog, sources: Sequence[Source], plan: Plan, built: Built | None
) -> tuple[int, str]:
    """Number of live records and their digest in hex, as the new manifest states them. Raises Corrupt when the sums
    disagree: then nothing may be published.
    """
    rows, digest = (parent.rows, int(parent.digest, 16)) if parent else (0, 0)
    rows += applied.tail.num_rows - sum(len(deleted) for deleted in applied.deleted.values())
    digest += total(applied.tail.column("digest")) - _digest_of_deleted(sources, applied.deleted)
    found_rows, found_digest = _live([sources[number] for number in plan.kept])
    if built is not None:
        more_rows, more_digest = _rehashed(built)
        found_rows, found_digest = found_rows + more_rows, found_digest + more_digest
    digest, found_digest = digest % MODULUS, found_digest % MODULUS
    if (rows, digest) != (found_rows, found_digest):
        raise Corrupt(
            f"the compaction does not prove: by the log {rows} records of digest {to_hex(digest)}, "
            f"by the files {found_rows} of {to_hex(found_digest)}"
        )
    return rows, to_hex(digest)


def _digest_of_deleted(sources: Sequence[Source], deleted: dict[int, BitMap]) -> int:
    digest = 0
    for number, rows in deleted.items():
        stored = as_bytes(sources[number].segment.records.column("digest"))
        digest += total(stored[np.fromiter(rows, np.int64, len(rows))])
    return digest


def _live(sources: Iterable[Source]) -> tuple[int, int]:
    rows = digest = 0
    for source in sources:
        mask = source.live_mask()
        rows += int(mask.sum())
        digest += total(as_bytes(source.segment.records.column("digest"))[mask])
    return rows, digest


def _rehashed(built: Built) -> tuple[int, int]:
    source = Source(built.directory, open_segment(built.directory, built.info, graph=False), built.dead, built.info)
    mask = source.live_mask()
    stored = as_bytes(source.segment.records.column("digest"))
    computed = as_bytes(record_digests(source.segment.records))
    if not np.array_equal(stored[mask], computed[mask]):
        raise Corrupt(f"segment {built.info.id} was written with records that do not have the digests they should")
    return int(mask.sum()), total(computed[mask])
