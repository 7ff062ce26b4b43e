"""A world whose collection keeps its history: what is trimmed is sealed before."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

from logservice.trimming.seal import Sealer
from shared.errors import StaleRead
from shared.records.model import Op
from shared.rpc import messages
from tests.queryworker.world import DIMENSION, World
from tests.shared.memtable.model import Operation, Row


def sealer_of(world: World, history_s: float = 3600.0) -> Sealer:
    async def of(_collection: str) -> float:
        return history_s

    histories: Any = SimpleNamespace(of=of)
    return Sealer(world.log, world.objects, histories)


async def seal_and_trim(world: World, history_s: float = 3600.0) -> None:
    """What the log service does with every shard."""
    sealer = sealer_of(world, history_s)
    for shard in range(world.shards):
        [state] = await world.log.states([(world.collection, shard)])
        assert state is not None
        if state.pointer is not None and state.trimmable:
            sealed = await sealer.seal(world.collection, shard, state.pointer)
            await world.log.trim(world.collection, shard, sealed, 0)


async def compact(world: World, history_s: float = 3600.0) -> None:
    """Compacts, seals and trims every shard."""
    await world.compact(trim=False)
    await seal_and_trim(world, history_s)


def random_operations(chance: random.Random, ids: int = 30) -> list[Operation]:
    """An append of one to five operations."""
    found = []
    for _ in range(chance.randint(1, 5)):
        id_, vector = f"id{chance.randrange(ids)}", tuple(float(chance.randint(-9, 9)) for _ in range(DIMENSION))
        op = chance.choices([Op.ADD, Op.UPDATE, Op.UPSERT, Op.DELETE], [2, 2, 3, 1])[0]
        found.append(
            Operation(op, id_) if op is Op.DELETE else Operation(op, id_, vector, f"text {chance.randrange(99)}")
        )
    return found


async def records_as_of(world: World, position: int) -> dict[str, str | None]:
    """Id -> document of all shards. Raises StaleRead."""
    found: dict[str, str | None] = {}
    for shard in range(world.shards):
        wanted = world.shard(shard, as_of=position, past=True)
        columns = (await world.worker.get(messages.GetRequest(wanted, documents=True))).columns
        assert columns.documents is not None
        found |= zip(columns.ids, columns.documents, strict=True)
    return found


def documents_of(state: dict[str, Row]) -> dict[str, str | None]:
    return {id_: row.document for id_, row in state.items()}


async def is_kept(world: World, position: int) -> bool:
    """Whether the collection can be read as of the position."""
    try:
        await records_as_of(world, position)
    except StaleRead:
        return False
    return True
