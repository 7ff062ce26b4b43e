"""Commits of conditional transactions: writes that are appended together if nothing that the transaction has read has
been written since (docs/design/2026-11-21-transactions.md).

1. The log compares the ids that were read with what was written since the token, and appends in the same step.
2. It cannot decide when some operation names one of the ids, as that may have changed nothing, or when it does not
   reach back to the token. A query worker then proves that the ids were not changed up to some later position, and the
   log compares from there on.
3. An id that the worker finds changed, or cannot tell about, is a conflict.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import numpy as np
from prometheus_client import Counter

from frontend.concurrency import off_loop
from frontend.parse.durability import DISK, Durability
from frontend.parse.writes import wrong_width
from frontend.write.operations import Operations, joined, new_keys_of
from frontend.write.writes import count_written
from shared.cluster.placement import Layout, shard_of
from shared.errors import Backoff, ConditionalWriteConflict, DimensionMismatch, InvalidArgument, StaleRead
from shared.log.append import Appended, AppendRequest
from shared.log.batch import split_batch
from shared.log.condition import CONFLICT, Condition, IdsRead, Undecided
from shared.process.concurrency import together
from shared.records.selection import Selection
from shared.rpc.messages import GetRequest, Shard

if TYPE_CHECKING:
    from frontend.read.workers import Workers
    from frontend.write.dirty import DirtyShards
    from frontend.write.durable import Durable
    from shared.catalog import Collection
    from shared.log.log import Log

COMMITS = Counter("polychrome_frontend_conditional_commits_total", "Conditional commits, by outcome.", ["outcome"])
PROOFS = Counter("polychrome_frontend_commit_proofs_total", "Commits that the log alone could not decide about.")

PROOFS_MAX: Final = 100
"""Times that a commit goes back to the workers, at most, because others wrote in between what may have changed its ids.
"""


class Committer:
    """Commits conditional transactions."""

    def __init__(self, log: Log, dirty: DirtyShards, workers: Workers, durable: Durable) -> None:
        self._log = log
        self._durable = durable
        self._dirty = dirty
        self._workers = workers

    async def commit(
        self,
        collection: Collection,
        operations: Sequence[Operations],
        token: int | None,
        ids: Iterable[str],
        request_id: str,
        durability: Durability = DISK,
    ) -> Appended:
        """Appends all operations in one step if no id in `ids` was written at the position `token` or later. Returns
        where they were appended, once they are as durable as asked for. Raises LessDurable when they are on disk alone,
        ConditionalWriteConflict (nothing is written then), and what an append does: StaleGeneration, after which the
        same request may be made again by the current row.
        """
        try:
            await self._durable.check(durability)
            appended = await self._commit(collection, operations, token, sorted(set(ids)), request_id, durability)
        except ConditionalWriteConflict:
            COMMITS.labels("conflict").inc()
            raise
        COMMITS.labels("committed").inc()
        for each in operations:
            count_written(each)
        await self._durable.reach(collection, appended, durability)
        return appended

    async def _commit(
        self,
        collection: Collection,
        operations: Sequence[Operations],
        token: int | None,
        read_ids: Sequence[str],
        request_id: str,
        durability: Durability,
    ) -> Appended:
        size, width = sum(each.size or 0 for each in operations), _width(operations)
        shard_batches = await off_loop(size, lambda: split_batch(joined(operations), collection.layout))
        kinds = frozenset().union(*(each.kinds for each in operations))
        reads = _reads_by_shard(collection.layout, token, read_ids)
        for _ in range(PROOFS_MAX):
            request = AppendRequest(
                collection_id=collection.id,
                request_id=request_id,
                batches=shard_batches,
                dimension=width,
                generation=collection.generation,
                new_keys=new_keys_of(collection, kinds),
                replicas=durability.replicas,
                condition=None if token is None or not reads else Condition(token, reads),
            )
            try:
                appended = await self._log.append(request)
            except DimensionMismatch as error:
                raise wrong_width(error.expected, width or 0) from None
            except Undecided as undecided:
                assert token is not None
                PROOFS.inc()
                reads = {**reads, **await self._proven(collection.id, token, reads, undecided.shards)}
            else:
                self._dirty.add(collection.id, shard_batches)
                return appended
        raise Backoff("What was read is surrounded by too many writes; try again")

    async def _proven(
        self, collection_id: str, token: int, reads: Mapping[int, IdsRead], shards: Sequence[int]
    ) -> dict[int, IdsRead]:
        """The reads of these shards, proven to be unchanged up to later positions. Raises
        ConditionalWriteConflict.
        """
        positions = await together(
            [self._unchanged_up_to(Shard(collection_id, shard), token, reads[shard].ids) for shard in shards]
        )
        return {shard: replace(reads[shard], since=since) for shard, since in zip(shards, positions, strict=True)}

    async def _unchanged_up_to(self, shard: Shard, token: int, ids: Sequence[str]) -> int:
        """The position, now, up to which nobody has changed these ids since the token. Raises
        ConditionalWriteConflict when somebody has, or nobody can tell.
        """
        now = await self._workers.get(GetRequest(shard, Selection(list(ids)), written=True))
        changed = bool((np.frombuffer(now.written or b"", "<i8") >= token).any())
        absent = sorted(set(ids).difference(now.columns.ids))
        if changed or (absent and await self._existed(shard, token, absent)):
            raise ConditionalWriteConflict(CONFLICT)
        return now.position

    async def _existed(self, shard: Shard, token: int, ids: list[str]) -> bool:
        """Whether one of these ids had a record as of the token, for all that is known."""
        try:
            at_the_token = Shard(shard.collection, shard.shard, as_of=token)
            then = await self._workers.get(GetRequest(at_the_token, Selection(ids)))
        except StaleRead:
            return True
        return bool(then.columns.ids)


def _width(operations: Sequence[Operations]) -> int | None:
    """The dimension of all embeddings, None without any. Raises InvalidArgument when they differ."""
    widths = {each.width for each in operations} - {None}
    if len(widths) > 1:
        raise InvalidArgument("Inconsistent dimensions in provided embeddings")
    return next(iter(widths), None)


def _reads_by_shard(layout: Layout, token: int | None, ids: Sequence[str]) -> dict[int, IdsRead]:
    """The ids that were read, by their shard; of none it is known yet what happened since the token."""
    ids_of: dict[int, list[str]] = defaultdict(list)
    if token is not None and ids:
        for home, id_ in zip(shard_of(ids, layout.count).tolist(), ids, strict=True):
            ids_of[layout.first + home].append(id_)
    return {shard: IdsRead(token or 0, some) for shard, some in ids_of.items()}
