"""Rows of collections as they are stored (JSON), and collections as they are read from rows and states."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import orjson

from shared.catalog.model import Collection, Database, Function, NewCollection, Rebuild
from shared.catalog.readable import collection_row
from shared.cluster.placement import Layout
from shared.errors import Corrupt
from shared.log.naming import state_name
from shared.log.pairs import Pairs
from shared.log.required import UNREADABLE, checked_fields, is_whole
from shared.log.state import Pointer, position_of

FIRST_GENERATION: Final = 1


def new_row(new: NewCollection) -> bytes:
    """The row of a collection that is about to be created."""
    return encode_row(
        {
            "name": new.name,
            "metadata": new.metadata,
            "configuration": new.configuration,
            "schema": new.schema,
            "ancestors": new.ancestors,
            "function": new.function,
            "generation": FIRST_GENERATION,
        }
    )


def changed_row(collection: Collection, changes: Mapping[str, Any]) -> bytes:
    """The row of the collection's next generation: with these changes, by the names of the row's members."""
    row = {
        name: getattr(collection, name)
        for name in ("name", "metadata", "configuration", "schema", "ancestors", "function")
    }
    return encode_row({**row, **changes, "generation": collection.generation + 1})


def encode_row(row: Mapping[str, Any]) -> bytes:
    """The stored form: equal rows have equal bytes, by which scripts recognise a change that is repeated."""
    return orjson.dumps(row, option=orjson.OPT_SORT_KEYS)


def function_of(collection_id: str, row: bytes | str) -> Function | None:
    """The function whose output the collection with this row is; None when it is no output. Raises Garbled."""
    return _function(collection_row(collection_id, row))


def _function(fields: Mapping[str, Any]) -> Function | None:
    encoded = fields.get("function")
    return None if encoded is None else Function.decode(encoded)


def collection_of(
    database: Database, collection_id: str, row: bytes, state: Mapping[bytes, bytes], keys: Pairs
) -> Collection | None:
    """The collection with this row, this state hash and these (metadata key, value type) pairs; None when the state is
    not whole or marked deleted, whatever the row says. Raises Garbled when the row cannot be read, and Corrupt, which
    names the state, when the state cannot.
    """
    if b"deleted" in state:
        return None
    if not is_whole({field: state.get(field.encode()) for field in checked_fields()}, database.key):
        return None
    fields = collection_row(collection_id, row)
    try:
        return _read(database, collection_id, fields, state, keys)
    except UNREADABLE as error:
        raise Corrupt(f"the state cannot be read: {error!r}", state_name(collection_id)) from error


def _read(
    database: Database, collection_id: str, fields: Mapping[str, Any], state: Mapping[bytes, bytes], keys: Pairs
) -> Collection:
    """The collection. Raises one of UNREADABLE."""
    layout = Layout.decode(state[b"layout"])
    earlier = int(state.get(b"ops_before", 0))
    return Collection(
        id=collection_id,
        name=fields["name"],
        tenant=database.tenant,
        database=database.name,
        database_key=database.key,
        metadata=fields["metadata"],
        configuration=fields["configuration"],
        schema=fields["schema"],
        layout=layout,
        generation=fields["generation"],
        dimension=int(state[b"dim"]) if b"dim" in state else None,
        head=int(state[b"head"]),
        keys=keys,
        pointers=pointers_of(state, layout),
        fixed=orjson.loads(state[b"config"]),
        written=_written(state, layout),
        appended=earlier + sum(int(state.get(b"ops:%d" % shard, 0)) for shard in layout.numbers),
        trimmed=earlier + sum(int(state.get(b"trimmed_ops:%d" % shard, 0)) for shard in layout.numbers),
        rebuild=_rebuild(state),
        laid_s=float(state[b"laid_s"]),
        cut=int(state[b"cut"]) if b"cut" in state else None,
        root_position=int(state[b"root"]) if b"root" in state else None,
        versions_before=int(state.get(b"versions_before", 0)),
        ancestors=tuple(fields.get("ancestors", ())),
        function=_function(fields),
        feeds=state[b"feeds"].decode() if b"feeds" in state else None,
        counted=int(state.get(b"counted", 0)),
        runs=int(state.get(b"runs", 0)),
        epoch=int(state.get(b"epoch", 0)),
    )


def pointers_of(state: Mapping[bytes, bytes], layout: Layout) -> tuple[Pointer | None, ...]:
    """The pointers of a layout's shards in a state hash."""
    found = [state.get(b"m:%d" % shard) for shard in layout.numbers]
    return tuple(None if pointer is None else Pointer.decode(pointer) for pointer in found)


def _written(state: Mapping[bytes, bytes], layout: Layout) -> tuple[int, ...]:
    return tuple(position_of(state.get(b"tail:%d" % shard, b"0-0").decode()) for shard in layout.numbers)


def _rebuild(state: Mapping[bytes, bytes]) -> Rebuild | None:
    if b"next" not in state:
        return None
    layout = Layout.decode(state[b"next"])
    return Rebuild(layout, int(state.get(b"built", 0)), pointers_of(state, layout), _written(state, layout))
