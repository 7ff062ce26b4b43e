"""Stored rows and states, to and from the catalog's values."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import orjson

from shared.catalog.model import Collection, Database, NewCollection
from shared.log.state import Pointer, position_of

FIRST_GENERATION: Final = 1


def new_row(new: NewCollection) -> bytes:
    return encode_row(
        {
            "name": new.name,
            "metadata": new.metadata,
            "configuration": new.configuration,
            "schema": new.schema,
            "shards": new.shards,
            "generation": FIRST_GENERATION,
        }
    )


def changed_row(collection: Collection, changes: Mapping[str, Any]) -> bytes:
    """The row of the next generation."""
    row = {name: getattr(collection, name) for name in ("name", "metadata", "configuration", "schema", "shards")}
    return encode_row({**row, **changes, "generation": collection.generation + 1})


def encode_row(row: Mapping[str, Any]) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_SORT_KEYS)


def collection_of(
    database: Database, collection_id: str, row: bytes, state: Mapping[bytes, bytes], keys: Iterable[bytes]
) -> Collection | None:
    """None when the state is gone or marked deleted, whatever the row says."""
    if b"head" not in state or b"deleted" in state:
        return None
    fields = orjson.loads(row)
    shards = range(fields["shards"])
    pointers = [state.get(b"m:%d" % shard) for shard in shards]
    return Collection(
        id=collection_id,
        name=fields["name"],
        tenant=database.tenant,
        database=database.name,
        database_key=database.key,
        metadata=fields["metadata"],
        configuration=fields["configuration"],
        schema=fields["schema"],
        shards=fields["shards"],
        generation=fields["generation"],
        dimension=int(state[b"dim"]) if b"dim" in state else None,
        head=int(state[b"head"]),
        keys=frozenset(_pair(key) for key in keys),
        pointers=tuple(None if pointer is None else Pointer.decode(pointer) for pointer in pointers),
        fixed=orjson.loads(state[b"config"]),
        written=tuple(position_of(state.get(b"tail:%d" % shard, b"0-0").decode()) for shard in shards),
        appended=sum(int(state.get(b"ops:%d" % shard, 0)) for shard in shards),
        trimmed=sum(int(state.get(b"trimmed_ops:%d" % shard, 0)) for shard in shards),
    )


def _pair(encoded: bytes) -> tuple[str, str]:
    key, kind = orjson.loads(encoded)
    return key, kind
