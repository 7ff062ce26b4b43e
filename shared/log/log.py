"""The log: appending to it, reading it, moving the pointer of what is compacted, trimming.

Each operation is one script in the collection's own slot, atomic there, and written so that running it twice has the
effect of once: an append carries a request id that the server remembers, the rest compares before it sets. So a lost
connection is answered by trying again, within a deadline.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final

from prometheus_client import Counter, Histogram
from redis.asyncio import Redis

from shared import limits
from shared.cluster.placement import Layout
from shared.errors import (
    Backoff,
    ConditionalWriteConflict,
    Corrupt,
    DimensionMismatch,
    Gone,
    StaleEpoch,
    StaleGeneration,
    Unavailable,
)
from shared.log.append import Appended, AppendRequest, CollectionLimits, arguments_of, keys_of
from shared.log.attempts import AppendAttempts
from shared.log.backlog import BacklogFull
from shared.log.condition import CONFLICT, Undecided
from shared.log.layouts import OwnedLayout, read_layouts
from shared.log.linking import link, lost_newest
from shared.log.naming import state_name
from shared.log.outputs import ProvenanceConflict
from shared.log.pairs import PairsFull
from shared.log.required import UNREADABLE
from shared.log.required import is_whole as is_readable
from shared.log.state import (
    FIRST_ID,
    Entry,
    Pointer,
    ShardRead,
    ShardState,
    has_head,
    parse_state,
    state_fields,
)
from shared.log.substitutes import Substitutes
from shared.log.wholeness import is_whole, reach_one_end
from shared.log.witness import Witness
from shared.records.model import FIRST_POSITION
from shared.redis.client import READ_DEADLINE_S, WRITE_DEADLINE_S, command, known_epoch, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.replication import online_replicas
from shared.redis.scripts import PIPELINE_MAX, Argument, Script

__all__ = ["Entry", "Log", "Pointer", "ShardRead", "ShardState"]

APPEND: Final = Script("shared.log", "append", uses=["entries"])
APPEND_DELETES: Final = Script("shared.log", "append", uses=["entries"], flags="allow-oom")
"""Appends what only deletes records, also on a server without room for anything else: room is made by deleting."""

READ: Final = Script("shared.log", "read")
COMMIT: Final = Script("shared.log", "commit")
COMMITS: Final = Script("shared.log", "commits")
REPOINT: Final = Script("shared.log", "repoint")
TRIM: Final = Script("shared.log", "trim")
DIMENSION: Final = Script("shared.log", "dimension")
HEAD: Final = Script("shared.log", "head")

SLOWEST_BYTES_S: Final = 32 * 1024 * 1024
"""Bytes of a page of the log that arrive per second at least, from a server that is up."""

APPENDED_OPS: Final = Counter("polychrome_log_appended_ops_total", "Operations appended to the log.")
APPENDED_BYTES: Final = Counter("polychrome_log_appended_bytes_total", "Payload bytes appended to the log.")
APPEND_SECONDS: Final = Histogram(
    "polychrome_log_append_seconds",
    "Time of one append, retries included.",
    buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3),
)


class Log:
    """The logs of all collections. `backlog_ops_max` operations and `backlog_bytes_max` payload bytes are the most that
    one collection's streams may hold before they are compacted and trimmed, `metadata_pairs_max` the most pairs of a
    metadata key and a type of value that its records may have. `witness` takes note of what is appended and read.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        *,
        backlog_ops_max: int = limits.BACKLOG_OPS_MAX,
        backlog_bytes_max: int = limits.BACKLOG_BYTES_MAX,
        metadata_pairs_max: int = limits.METADATA_PAIRS_MAX,
        append_deadline_s: float = WRITE_DEADLINE_S,
        witness: Witness | None = None,
    ) -> None:
        if not 0 < backlog_ops_max <= limits.BACKLOG_OPS_CEILING:
            raise ValueError(f"the backlog's limit is 1 to {limits.BACKLOG_OPS_CEILING} operations")
        self._redis = redis
        self._keys = keys
        self._most = CollectionLimits(backlog_ops_max, backlog_bytes_max, metadata_pairs_max)
        self._append_deadline_s = append_deadline_s
        self._substitutes = Substitutes(redis, keys)
        self._witness = witness

    async def append(self, request: AppendRequest) -> Appended:
        """Appends all of the request or nothing; durable on return.

        Raises Gone, StaleGeneration, DimensionMismatch, PairsFull, BacklogFull, StorageFull or
        Unavailable, when nothing was appended; or UnknownOutcome (it may be appended: the same request may be tried
        again). With a condition also ConditionalWriteConflict, or
        Undecided when the log does not tell whether it holds; with `provenance` also
        ProvenanceConflict, with `epoch` also StaleEpoch: nothing was appended then.
        """
        keys = keys_of(request, self._keys)
        arguments = functools.partial(arguments_of, request, self._most)
        script = APPEND_DELETES if request.deletes_only else APPEND
        attempts = AppendAttempts(self._redis, self._keys, script, keys, arguments, request.epoch, request.replicas)
        with APPEND_SECONDS.time():
            reply = await attempts.run(self._append_deadline_s)
        match reply:
            case [b"OK", first, head, *time_ms]:
                if self._witness is not None:
                    made_ms, epoch = time_ms[0] if time_ms else None, known_epoch(self._redis) or 0
                    self._witness.appended(request, first, head, made_ms, epoch)
                APPENDED_OPS.inc(request.count)
                APPENDED_BYTES.inc(request.size)
                return Appended(first, head, attempts.replicas_reached)
            case [b"EPOCH", epoch]:
                raise StaleEpoch(f"collection {request.collection_id} was restored in epoch {epoch}")
            case [b"STALE"]:
                raise StaleGeneration(f"collection {request.collection_id} has changed")
            case [b"DIMENSION", dimension]:
                message = f"Collection expecting embedding with dimension of {dimension}, got {request.dimension}"
                raise DimensionMismatch(message, dimension)
            case [b"PAIRS", count]:
                raise PairsFull(count, self._most.pairs)
            case [b"FULL", ops, size]:
                raise BacklogFull(self._most.backlog_ops - ops, self._most.backlog_bytes - size)
            case [b"CONFLICT"]:
                raise ConditionalWriteConflict(CONFLICT)
            case [b"PROVENANCE"]:
                raise ProvenanceConflict(f"another run has made the content of {request.collection_id}")
            case [b"DOUBT", shards]:
                raise Undecided(shards)
            case [b"LOST", shard]:
                raise await self._lost_part(request.collection_id, shard)
        raise await self.missing(request.collection_id)

    async def replicas(self) -> int:
        """The number of replicas that the server sends its writes to. Raises Unavailable."""
        return await online_replicas(self._redis)

    async def missing(self, collection_id: str) -> Gone | Unavailable:
        """The error that a missing state means: Gone, of a deleted collection, or Unavailable, of a server that lost
        everything and is being restored.
        """
        if await retry_idempotent(lambda: self._redis.exists(self._keys.cluster), writes=False):
            return Gone(f"collection {collection_id} was deleted")
        return Unavailable("The log is being restored")

    async def _lost_part(self, collection_id: str, shard: int) -> Unavailable:
        """The error that a state without a part of what it says of a shard means; the log service is told to look."""
        call = ("HGET", self._keys.state(collection_id), "db")
        database_key = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        if database_key is not None:
            with suppress(Backoff):  # a full server: the next sweep finds it
                note = ("SADD", self._keys.losses, database_key)
                await retry_idempotent(lambda: command(self._redis, *note), writes=True)
        return Unavailable(f"A part of the state of {collection_id}/{shard} was lost and is being restored")

    async def readable(self, collection_id: str) -> range:
        """The positions as of which a read is meaningful, if a worker reaches back so far; the last one is the head.
        What was read as of an earlier position may have been lost with an earlier run of the server. Raises Gone.
        """
        answer = await HEAD.run(self._redis, [self._keys.state(collection_id)], writes=False)
        if answer is None:
            raise await self.missing(collection_id)
        head, floor = answer
        return range(floor, head + 1)

    async def compacted_to(self, collection_id: str, layout: Layout) -> int:
        """The highest position, exclusive, up to which a shard of the collection is compacted: the cut of the present
        round or of the last one. Raises Gone, Corrupt, and StaleGeneration when the collection has another layout.
        """
        call = (
            "HMGET",
            self._keys.state(collection_id),
            "layout",
            "deleted",
            *(f"m:{shard}" for shard in layout.numbers),
        )
        present, deleted, *pointers = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        if present is None or deleted is not None:
            raise await self.missing(collection_id)
        if not is_readable({"layout": present}):
            raise await self.missing(collection_id)
        if Layout.decode(present) != layout:
            raise StaleGeneration(f"collection {collection_id} has other shards by now")
        try:
            return max([Pointer.decode(pointer).covers for pointer in pointers if pointer], default=FIRST_POSITION)
        except UNREADABLE as error:
            raise Corrupt(f"a pointer cannot be read: {error!r}", state_name(collection_id)) from error

    async def fix_dimension(self, collection_id: str, dimension: int) -> int:
        """The collection's dimension, which is `dimension` now if it had none. Raises Gone."""
        fixed: int = await DIMENSION.run(self._redis, [self._keys.state(collection_id)], [dimension])
        if not fixed:
            raise await self.missing(collection_id)
        return fixed

    async def read(
        self,
        collection_id: str,
        shard: int,
        after: str = FIRST_ID,
        bytes_max: int | None = None,
        known: ShardRead | None = None,
        after_chain: str = "",
    ) -> ShardRead:
        """The shard's state and the entries after the id `after`, as of one moment, in one round trip.

        With `known`, a complete read whose entries the caller has, `known` itself is returned when nothing has changed
        since; the server's reply is one number then.

        With `bytes_max`, stops after the entry that reaches it. Every entry is verified, and that it follows the one
        before it in the reply; so is the first one, if the caller gives the chain of the entry `after`. Else the caller
        checks by `previous` and `before_chain` whether it follows what he has. Raises Gone, Unavailable (also while a
        part of the state that was lost is being restored), and DamagedEntry when the
        first entry is damaged or missing; where a later one is, the read ends before it and is not complete.
        """
        keys = [self._keys.state(collection_id), self._keys.log(collection_id, shard)]
        limit: Argument = "" if bytes_max is None else bytes_max
        args = [after, limit, known.mark if known is not None else "", *state_fields(shard)]
        # A page that cannot arrive within the deadline would be asked for again and again: a large page has more time.
        deadline_s = READ_DEADLINE_S + (limits.BACKLOG_BYTES_MAX if bytes_max is None else bytes_max) / SLOWEST_BYTES_S
        answer = await READ.run(self._redis, keys, args, writes=False, deadline_s=deadline_s)
        if answer is None:
            raise await self.missing(collection_id)
        if known is not None and answer == 1:
            return known
        values, raw, complete, mark = answer
        if not has_head(values):
            raise await self.missing(collection_id)
        state = _parsed(collection_id, shard, values)
        if state.lost_part or (complete and lost_newest(state, raw)):
            raise await self._lost_part(collection_id, shard)
        linked = functools.partial(
            link, collection_id, state, after, raw, complete=bool(complete), after_chain=after_chain
        )
        entries, damage = linked()
        if damage is not None:
            entries, damage = linked(substitutes=await self._substitutes.of_shard(collection_id, shard, after))
        if damage is not None and not entries:
            raise damage
        if self._witness is not None:
            # A collection that was made after a restoration has no epoch of its own.
            epoch = max(state.epoch, known_epoch(self._redis) or 0)
            self._witness.read(collection_id, shard, entries, epoch)
        return ShardRead(state, entries, bool(complete) and damage is None, mark)

    async def is_whole(self, collection_id: str, shard: int, covers: int) -> bool:
        """Whether no entry is missing of what was ever written to the shard at the position `covers` or later."""
        return await is_whole(self._redis, self._keys, collection_id, shard, covers)

    async def reach_one_end(self, collection_id: str, covers: Mapping[int, int]) -> bool:
        """Whether the streams of shards, whose manifests cover this, end with the same append, as far as it shows."""
        return await reach_one_end(self._redis, self._keys, collection_id, covers)

    async def layouts(self, ids: Sequence[str]) -> dict[str, OwnedLayout]:
        """The layout and the database of each collection that is there and whose state can be read."""
        return await read_layouts(self._redis, self._keys, ids)

    async def states(
        self, shards: Sequence[tuple[str, int]], damaged: dict[str, str] | None = None
    ) -> list[ShardState | None]:
        """The states of many shards (collection id and number), pipelined; None where the collection is gone. Raises
        Corrupt when one cannot be read, unless `damaged` is given: then it gets the collection's id and what is wrong,
        and the answer is None.
        """
        found: list[ShardState | None] = []
        for start in range(0, len(shards), PIPELINE_MAX):
            batch = shards[start : start + PIPELINE_MAX]
            rows = await retry_idempotent(functools.partial(self._state_rows, batch), writes=False)
            for (collection_id, shard), values in zip(batch, rows, strict=True):
                try:
                    # A state that lost a field is as good as lost: it is restored as a whole.
                    found.append(_parsed(collection_id, shard, values) if has_head(values) else None)
                except Corrupt as error:
                    if damaged is None:
                        raise
                    damaged[collection_id] = error.message
                    found.append(None)
        return found

    async def _state_rows(self, shards: Iterable[tuple[str, int]]) -> list[list[bytes | None]]:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for collection_id, shard in shards:
                pipeline.hmget(self._keys.state(collection_id), state_fields(shard))
            rows: list[list[bytes | None]] = await pipeline.execute()
            return rows

    async def draw_commit(self) -> int:
        """Draws the next number of a commit, to be left in the bucket before the manifest is created
        (`shared.manifest.commits`).
        """
        return int(await COMMITS.run(self._redis, [self._keys.commits], ["draw"]))

    async def commits(self) -> int:
        """The number of a commit that was drawn last; 0 before the first, and when it cannot be read."""
        drawn = await retry_idempotent(lambda: command(self._redis, "GET", self._keys.commits), writes=False)
        return int(drawn) if drawn and drawn.isdigit() else 0

    async def raise_commits(self, number: int) -> None:
        """Makes all numbers of commits that are drawn from now on higher than this."""
        await COMMITS.run(self._redis, [self._keys.commits], ["raise", number])

    async def commit(self, collection_id: str, shard: int, expected: Pointer | None, new: Pointer, epoch: int) -> bool:
        """Moves the shard's pointer from `expected` to `new`; whether it now is `new`. `epoch` is that of the state
        from which the work on the new manifest began: in another one nothing is moved. Raises Gone, and Corrupt when
        `new` covers positions that were never handed out.
        """
        if expected is not None and (new.version <= expected.version or new.covers < expected.covers):
            raise ValueError(f"{new} does not come after {expected}")
        args: list[Argument] = [f"m:{shard}", expected.encode() if expected else "", new.encode()]
        args += [new.covers, epoch]
        outcome = await COMMIT.run(self._redis, [self._keys.state(collection_id)], args)
        if outcome == b"GONE":
            raise await self.missing(collection_id)
        if outcome == b"AHEAD":
            raise Corrupt(f"manifest {new.version} of {collection_id}/{shard} covers positions never handed out")
        return bool(outcome == b"OK")

    async def repoint(self, collection_id: str, shard: int, pointer: Pointer, epoch: int) -> bool:
        """Gives a shard this pointer in the place of one that it lost: the log was trimmed beyond what the present one
        covers. Whether the pointer covers what was trimmed now.
        """
        args: list[Argument] = [shard, pointer.encode(), pointer.covers, epoch]
        outcome = await REPOINT.run(self._redis, [self._keys.state(collection_id)], args)
        return bool(outcome in (b"OK", b"WHOLE"))

    async def trim(self, collection_id: str, shard: int, pointer: Pointer, epoch: int) -> int:
        """Drops the entries that `pointer` covers and returns how many; none when it is neither the committed pointer
        nor an ancestor of it, or when the state is of a later epoch than the caller's. Raises Corrupt when it covers
        half an append.
        """
        names = self._keys
        keys = [names.state(collection_id), names.log(collection_id, shard), names.substitutes(collection_id)]
        dropped: int = await TRIM.run(self._redis, keys, [shard, pointer.version, pointer.hash, pointer.covers, epoch])
        if dropped < 0:
            raise Corrupt(f"manifest {pointer.version} of {collection_id}/{shard} covers half an append")
        return dropped


def _parsed(collection_id: str, shard: int, values: Sequence[bytes | None]) -> ShardState:
    """The state, from the values of `state_fields(shard)`. Raises Corrupt, which names it, when it cannot be read."""
    try:
        return parse_state(shard, values)
    except UNREADABLE as error:
        raise Corrupt(f"the state of shard {shard} cannot be read: {error!r}", state_name(collection_id)) from error
