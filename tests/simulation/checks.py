"""What must be true when nothing has disturbed the cluster for a while."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import orjson
import pyarrow as pa

from shared.cluster.placement import shard_of
from shared.errors import PolychromeError
from shared.log.state import ShardState, parse_state, state_fields
from shared.manifest.model import decode_as
from shared.objects.keys import manifest_key
from shared.records.digest import record_digests, to_hex, total
from shared.records.model import record_schema
from shared.redis.keys import Keys
from tests.simulation.history import Violation
from tests.simulation.workload import REFUSED, Access, Documents, get_of

if TYPE_CHECKING:
    from shared.catalog import Collection
    from tests.simulation.run import Simulation

SETTLE_S: Final = 90.0
"""Virtual seconds that the cluster has to come to rest."""


async def check_end(simulation: Simulation, access: Access) -> None:
    """Raises Violation when a promise is broken for good."""
    collections = {bank.collection.id: bank.collection for bank in simulation.banks}
    await _settle(simulation, access, list(collections.values()))
    for bank in simulation.banks:
        found = await _final(simulation, access, bank.collection, bank.ids)
        bank.check_whole(found, "in the end")
    for group in simulation.groups:
        found = await _final(simulation, access, group.collection, group.ids)
        group.check_whole(found, "in the end")
    for collection in collections.values():
        await _check_manifests(simulation, access, collection)
    if simulation.history.violations:
        raise simulation.history.violations.pop()


async def _settle(simulation: Simulation, access: Access, collections: list[Collection]) -> None:
    """Waits until the cluster answers, everything is compacted and trimmed."""
    until_s = simulation.loop.time() + SETTLE_S
    while True:
        if simulation.loop.time() > until_s:
            deaths = {member.name: member.deaths[-1] for member in simulation.members if member.deaths}
            raise Violation("stuck", f"the cluster does not come to rest: {deaths}")
        await asyncio.sleep(0.5)
        if any(frontend.serving for frontend in simulation.frontends):
            continue  # for clients that do not wait any more: it may still append
        try:
            for collection in collections:
                await access.head(collection)
        except REFUSED:
            continue
        except PolychromeError as error:
            raise Violation("collection lost", f"{error!r}") from error
        if all(_at_rest(simulation, collection) for collection in collections):
            return


def _at_rest(simulation: Simulation, collection: Collection) -> bool:
    """Whether everything in the collection's log is in manifests, and trimmed."""
    states = _states(simulation, collection)
    streams = [Keys().log(collection.id, state.number).encode() for state in states]
    entries = sum(simulation.redis.data.call([b"XLEN", stream]) for stream in streams)
    return not entries and not any(state.uncompacted for state in states)


def _states(simulation: Simulation, collection: Collection) -> list[ShardState]:
    key = Keys().state(collection.id).encode()
    found = []
    for shard in collection.layout.numbers:
        fields = [field.encode() if isinstance(field, str) else field for field in state_fields(shard)]
        values = simulation.redis.data.call([b"HMGET", key, *fields])
        found.append(parse_state(shard, values))
    return found


async def _final(simulation: Simulation, access: Access, collection: Collection, ids: list[str]) -> Documents:
    """What these ids are in the end, as every read says it, plain and as of now."""
    until_s = simulation.loop.time() + SETTLE_S
    while True:
        try:
            found = await access.read(collection, ids)
            again, _, _ = await access.read_as_of(collection, ids, None)
        except REFUSED as error:
            if simulation.loop.time() > until_s:
                raise Violation("stuck", f"reads are refused: {error!r}") from error
            await asyncio.sleep(0.5)
            continue
        except PolychromeError as error:
            raise Violation("read refused", f"{collection.id} {ids}: {error!r}") from error
        if found != again:
            raise Violation("reads differ", f"{found} and {again}")
        return found


async def _check_manifests(simulation: Simulation, access: Access, collection: Collection) -> None:
    """The digests of the newest manifests are those of the records that a read finds."""
    get = get_of(None, embeddings=True)
    body = await access.call(lambda frontend: frontend.reader.get(collection, get))
    answer: Any = orjson.loads(bytes(body))
    homes = shard_of(answer["ids"], collection.layout.count)
    objects = simulation.bucket.objects()
    for state in _states(simulation, collection):
        rows = np.flatnonzero(homes == state.number - collection.layout.first).tolist()
        if state.pointer is None:
            if rows:
                raise Violation("digest", f"{collection.id}/{state.number} has records and no manifest")
            continue
        key = manifest_key(collection.id, state.number, state.pointer.version)
        manifest = decode_as(objects[key], collection.id, state.number, state.pointer.version)
        digest = to_hex(total(record_digests(_records(answer, rows)))) if rows else to_hex(0)
        if (manifest.rows, manifest.digest) != (len(rows), digest):
            raise Violation("digest", f"{key} has {manifest.rows} rows of {manifest.digest}, a read finds {len(rows)}")


def _records(answer: Any, rows: list[int]) -> pa.Table:
    schema = record_schema(2)
    vectors = np.array([answer["embeddings"][row] for row in rows], np.float32).reshape(-1)
    columns = {
        "id": pa.array([answer["ids"][row] for row in rows], pa.large_string()),
        "embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors), type=schema.field("embedding").type),
        "document": pa.array([answer["documents"][row] for row in rows], pa.large_string()),
        "metadata": pa.nulls(len(rows), pa.large_string()),
        "uri": pa.nulls(len(rows), pa.large_string()),
    }
    return pa.table(columns)
