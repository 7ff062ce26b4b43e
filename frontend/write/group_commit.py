"""Group commit: small writes to one collection that arrive while one of them is being appended are appended together.

A group is one append: one batch, one run of the script, one entry per shard. So it costs little more than each of its
members would by itself, and each member is acknowledged when all of them are durable.

1. A write to a collection that no small write is being appended to is appended at once.
2. Writes that arrive meanwhile wait. When that append has ended, those that wait and have the same generation, layout
   and width of embeddings go together, in the order of their arrival. Writes of different durability classes do not
   wait for each other.
3. A group that is refused was not applied. What happens then depends on what the refusal speaks of:

   ```text
   error                                speaks of      the members
   Gone                                 the group      all get it
   StaleGeneration                      the group      all get it: their rows have one generation and one layout
   DimensionMismatch                    the group      all get it: their embeddings have one width
   Backoff (the server's memory)        the group      all get it
   Unavailable                          the group      all get it
   LessDurable (it was applied)         the group      all get it, and nothing is tried again
   UnknownOutcome, anything unforeseen  the group      all get it, and nothing is tried again
   PairsFull (metadata keys)            their sum      halved, again and again, until those with too many are alone
   BacklogFull                          their sum      what still fits, in order, is appended; the others get it
   a batch that cannot be encoded       one of them    halved, again and again, until that one is alone
   ```

   So a refusal costs one append when it holds for all, which is when the log is overloaded; `FULL_TRIES_MAX` at most
   when the backlog has space for some; and about log2(n) when one of n members cannot be encoded. No write is refused
   because of another one, except by a backlog that has no space for both.

Request ids: an append goes under the id of its first member. The id of a write thus names only appends which that write
is part of, and another one is tried under it only after the one before was refused. So what the log remembers of an id
is always the append that made the write durable.

A caller that gives up waiting takes nothing from the others: its write is appended with theirs, and its outcome was
unknown to it in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

from frontend.concurrency import off_loop
from frontend.parse.durability import DISK, Durability
from frontend.write.operations import Operations, joined, new_keys_of
from shared.errors import UnknownOutcome
from shared.log.append import AppendRequest
from shared.log.backlog import BacklogFull
from shared.log.batch import split_batch
from shared.log.pairs import PairsFull
from shared.process.telemetry import get_logger
from shared.records.model import Op

if TYPE_CHECKING:
    from frontend.write.dirty import DirtyShards
    from frontend.write.durable import Durable
    from shared.catalog import Collection
    from shared.log.log import Log

log = get_logger(__name__)

GROUP_BYTES_MAX: Final = 1024 * 1024
"""Sum of the sizes of a group's members, in bytes."""

FULL_TRIES_MAX: Final = 4
"""Times that what is left of a group is tried on a backlog that has space for some of it. The bytes that a member takes
are an estimate, and other frontends write meanwhile."""


@dataclass(slots=True)
class _Member:
    """A write and where its outcome goes: `done`, or, without one, the caller that appends it."""

    collection: Collection
    operations: Operations
    request_id: str
    durability: Durability
    done: asyncio.Future[None] | None = None


Learn = Callable[["Collection", Sequence[tuple[str, str]]], None]


def learn_nothing(_collection: Collection, _pairs: Sequence[tuple[str, str]]) -> None:
    """For those who keep no rows."""


_QueueKey = tuple[str, Durability]
"""Id of the collection, and the durability class of the writes."""


@dataclass(slots=True)
class _Queue:
    """The writes that wait while an append to their collection is under way."""

    waiting: list[_Member] = field(default_factory=list)
    task: asyncio.Task[None] | None = None  # kept, or it could be collected while it runs


class GroupCommit:
    """Appends writes, small ones in groups, and marks the shards that were written. `learn` is told of the metadata
    keys that an append has brought, which the next one need not bring.
    """

    def __init__(self, log: Log, dirty: DirtyShards, durable: Durable, learn: Learn = learn_nothing) -> None:
        self._log = log
        self._learn = learn
        self._dirty = dirty
        self._durable = durable
        self._queues: dict[_QueueKey, _Queue] = {}

    async def append(
        self, collection: Collection, operations: Operations, request_id: str, durability: Durability = DISK
    ) -> None:
        """Appends the operations; they are durable, as asked for, when this returns. Raises what `Log.append` and
        `Durable` do.
        """
        member = _Member(collection, operations, request_id, durability)
        if not operations.small:
            return await self._send(member, await _encode([member]))
        key = (collection.id, durability)  # no write waits for what another one wants
        queue = self._queues.get(key)
        if queue is not None:
            member.done = asyncio.get_running_loop().create_future()
            queue.waiting.append(member)
            return await member.done
        self._queues[key] = _Queue()
        try:
            return await self._send(member, await _encode([member]))
        finally:
            self._next(key)

    def _next(self, key: _QueueKey) -> None:
        queue = self._queues[key]
        if queue.waiting:
            queue.task = asyncio.create_task(self._append_group(key, _group(queue.waiting)))
        else:
            del self._queues[key]

    async def _append_group(self, key: _QueueKey, members: Sequence[_Member]) -> None:
        """Appends the members. However that ends, each of them has an outcome then, for which its caller waits."""
        try:
            await self._settle(members, FULL_TRIES_MAX)
        except Exception as error:  # a defect in what settles them: handed on to each caller that has no outcome yet
            log.exception("write_group_not_settled", collection=key[0], writes=len(members))
            _fail(members, error)
        except BaseException:  # cancelled: the loop is ending
            _fail(members, UnknownOutcome("The frontend stopped in the middle of the append"))
            raise
        finally:
            self._next(key)

    async def _settle(self, members: Sequence[_Member], tries: int) -> None:
        """Appends the members and gives each its outcome, as the table at the top says."""
        try:
            request = await _encode(members)
        except Exception as error:  # a value that no check refused: nothing was sent, and it must not hurt the others
            return await self._halve(members, tries, error)
        try:
            await self._send(members[0], request)
        except PairsFull as full:
            await self._halve(members, tries, full)
        except BacklogFull as full:
            fitting, refused = _divide(members, request.size, full) if tries > 1 else ([], members)
            _fail(refused, full)
            if fitting:
                await self._settle(fitting, tries - 1)
        except Exception as error:  # handed on to each of the callers
            _fail(members, error)
        else:
            _acknowledge(members)

    async def _halve(self, members: Sequence[_Member], tries: int, error: Exception) -> None:
        """Appends the members in two halves, because together they were refused with `error`; a single one gets it."""
        if len(members) == 1:
            _fail(members, error)
            return
        half = len(members) // 2
        await self._settle(members[:half], tries)
        await self._settle(members[half:], tries)

    async def _send(self, first: _Member, request: AppendRequest) -> None:
        """Appends the request of `first` and those like it."""
        await self._durable.check(first.durability)
        appended = await self._log.append(request)
        if request.new_keys:
            self._learn(first.collection, request.new_keys)
        self._dirty.add(request.collection_id, request.batches)
        await self._durable.reach(first.collection, appended, first.durability)


async def _encode(members: Sequence[_Member]) -> AppendRequest:
    """The append of all members. Raises what pyarrow does with a value that is not what its column holds."""
    first, operations = members[0], [member.operations for member in members]
    collection = first.collection
    size = sum(each.size or 0 for each in operations) if first.operations.small else None
    kinds = frozenset(chain.from_iterable(each.kinds for each in operations))
    return AppendRequest(
        collection_id=collection.id,
        request_id=first.request_id,
        batches=await off_loop(size, lambda: split_batch(joined(operations), collection.layout)),
        dimension=first.operations.width,
        generation=collection.generation,
        new_keys=new_keys_of(collection, kinds),
        deletes_only=_deletes(first),
        replicas=first.durability.replicas,
    )


def _deletes(member: _Member) -> bool:
    return member.operations.op is Op.DELETE


def _acknowledge(members: Iterable[_Member]) -> None:
    for member in members:
        if member.done is not None and not member.done.done():
            member.done.set_result(None)


def _fail(members: Iterable[_Member], error: Exception) -> None:
    for member in members:
        if member.done is not None and not member.done.done():
            member.done.set_exception(error)


def _group(waiting: list[_Member]) -> list[_Member]:
    """Takes the first of the waiting writes off the list, and all that follow it and can go with it."""
    first, size, group = waiting[0], 0, list[_Member]()
    for member in waiting:
        size += member.operations.size or 0
        if group and (size > GROUP_BYTES_MAX or not _alike(member, first)):
            break
        group.append(member)
    del waiting[: len(group)]
    return group


def _alike(member: _Member, other: _Member) -> bool:
    """Whether both members have everything in common that the log compares with the collection's state, so that one
    outcome holds for both; and whether both are deletes or none is, for deletes are taken when nothing else is.
    """
    return (
        member.collection.generation == other.collection.generation
        and member.collection.layout == other.collection.layout
        and member.operations.width == other.operations.width
        and _deletes(member) == _deletes(other)
    )


def _divide(members: Sequence[_Member], payload_bytes: int, full: BacklogFull) -> tuple[list[_Member], list[_Member]]:
    """The members that the backlog still has space for, in their order, and those, at least one, that it has none for.
    `payload_bytes` is what all members take; each member is estimated to take its share by the size of its request.
    """
    sizes = [(member.operations.size or 0) + len(member.operations.ids) for member in members]
    byte_share = payload_bytes / sum(sizes)
    ops_left, bytes_left = full.ops_left, float(full.bytes_left)
    fitting, refused = list[_Member](), list[_Member]()
    for member, size in zip(members, sizes, strict=True):
        ops, taken = len(member.operations.ids), size * byte_share
        if ops <= ops_left and taken <= bytes_left:
            ops_left, bytes_left = ops_left - ops, bytes_left - taken
            fitting.append(member)
        else:
            refused.append(member)
    return (fitting, refused) if refused else (fitting[:-1], fitting[-1:])
