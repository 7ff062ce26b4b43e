"""The barrier of an erasure: operations in the log behind which nothing that was erased may be found.

A barrier deletes, in each shard, an id that nobody has. So it changes nothing, and has every shard compacted and its
log trimmed beyond what came before, and (of a collection with several shards) another root written, by the very
machinery that does so all the time.

Its ids are longer than a node of a Redis stream (`stream-node-max-bytes`, 4096 by default). So it begins a node of its
own, and when the log is trimmed beyond it, all nodes before it go as a whole: in a node that stays, Redis only marks
entries as deleted, and writes their bytes into its files on and on.
"""

from __future__ import annotations

import secrets
import uuid
from typing import Final

from shared.cluster.placement import Layout, shard_of
from shared.log.append import AppendRequest
from shared.log.batch import build_batch, split_batch
from shared.log.log import Log
from shared.records.model import Op

NODE_BYTES: Final = 8192
"""Bytes of an id of a barrier: more than a node of a stream holds by default."""


def barrier_ids(layout: Layout) -> list[str]:
    """Ids that nobody has, one for each shard of the layout."""
    found: dict[int, str] = {}
    while len(found) < layout.count:
        candidate = f"erasure {secrets.token_hex(NODE_BYTES // 2)}"
        found.setdefault(int(shard_of([candidate], layout.count)[0]), candidate)
    return list(found.values())


async def append_barrier(log: Log, collection: str, layout: Layout) -> int:
    """Appends a barrier; the position behind it. Raises Gone, and Unavailable or Backoff (try again: one more barrier
    does no harm).
    """
    request = AppendRequest(
        collection_id=collection,
        request_id=uuid.uuid4().hex,
        batches=split_batch(build_batch(Op.DELETE, barrier_ids(layout)), layout),
        dimension=None,
        generation=None,
        deletes_only=True,
    )
    return (await log.append(request)).head
