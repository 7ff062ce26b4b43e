"""The shards of a collection, as requests to query workers name them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from shared.process.concurrency import together
from shared.records.model import ReadLevel
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


async def ask_all_shards(
    collection: Collection, ask: Callable[[Shard], Awaitable[Response]], first: Shard
) -> list[Response]:
    """The results of `ask` for every shard, read as `first` says, in the order of the layout; all shards are asked at
    once, and a failure of one shard is the failure of all.
    """
    return await together([ask(replace(first, shard=number)) for number in collection.layout.numbers])
