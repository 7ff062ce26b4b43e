"""The shards of a collection, as requests to query workers name them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from shared.cluster.placement import shard_of
from shared.process.concurrency import together
from shared.records.model import ReadLevel
from shared.records.selection import Selection
from shared.rpc.messages import Shard

if TYPE_CHECKING:
    from shared.catalog import Collection

Response = TypeVar("Response")


def first_shard(
    collection: Collection,
    read_level: ReadLevel = ReadLevel.INDEX_AND_WAL,
    as_of: int | None = None,
    *,
    past: bool = False,
) -> Shard:
    """The first shard of the collection's layout, which is the only shard of most collections."""
    return Shard(collection.id, collection.layout.first, read_level, as_of, past)


def concerned(collection: Collection, selection: Selection) -> Sequence[int]:
    """The shards of the collection, ascending, that can have records of the selection: of one that names ids, those
    that the ids hash to, and at least one. What is wrong with other shards does not concern the read.
    """
    layout = collection.layout
    if selection.ids is None or layout.count == 1:
        return layout.numbers
    homes = sorted(set(shard_of(selection.ids, layout.count).tolist())) or [0]
    return [layout.first + home for home in homes]


async def ask_shards(
    shards: Sequence[int], ask: Callable[[Shard], Awaitable[Response]], first: Shard
) -> list[Response]:
    """The results of `ask` for these shards, read as `first` says, in their order; all are asked at once, and a failure
    of one shard is the failure of all.
    """
    return await together([ask(replace(first, shard=number)) for number in shards])


async def ask_all_shards(
    collection: Collection, ask: Callable[[Shard], Awaitable[Response]], first: Shard
) -> list[Response]:
    """The results of `ask` for every shard of the collection, as `ask_shards` gives them."""
    return await ask_shards(collection.layout.numbers, ask, first)
