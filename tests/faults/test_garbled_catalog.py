"""Bytes of the catalog change in the Redis of a running cluster: what they belong to is unavailable for a moment, says
why, and comes back; everything else goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest
from redis.asyncio import Redis

from shared.objects.keys import SNAPSHOTS
from shared.objects.open import open_store
from shared.redis.client import command, open_redis
from shared.redis.keys import Keys
from tests.cluster.harness import Cluster, ClusterBuilder
from tests.faults.scenario import ENVIRON

pytestmark = pytest.mark.timeout(120)

TENANT, DATABASE, NAME = "acme", "main", "hit"
DATABASES: Final = f"/api/v2/tenants/{TENANT}/databases"
COLLECTIONS: Final = f"{DATABASES}/{DATABASE}/collections"
ELSEWHERE: Final = "/api/v2/tenants/default_tenant/databases/default_database/collections"
SAYS: Final = (
    r'"event":"(row_unreadable|garbled_rows_restored|tenants_restored|rows_tidied|rows_restored|slot_version_restored'
    r'|metadata_keys_unreadable|metadata_keys_restored|state_unreadable)"'
)
BACK_S_MAX: Final = 15.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    directory: Path = tmp_path_factory.mktemp("garbled")
    builder = ClusterBuilder(directory, shards_default=1, environ={**ENVIRON, "POLYCHROME_LOGSERVICE_SWEEP_S": "1"})
    with builder.start() as running:
        running.allow_in_logs(SAYS)
        yield running


@dataclass
class Place:
    """A value in Redis: the key of a hash or a string, and the field in a hash."""

    key: str
    field: str | None = None
    path: str = f"{COLLECTIONS}/{NAME}"
    is_read: bool = True
    """Whether a request to the path reads it."""


@dataclass
class Made:
    """A collection in a tenant and a database of its own, with a record."""

    id: str
    database_key: str


PLACES: Final[dict[str, Callable[[Keys, Made], Place]]] = {
    "tenant": lambda keys, _: Place(keys.tenants, TENANT, f"/api/v2/tenants/{TENANT}"),
    "database": lambda keys, _: Place(keys.databases(TENANT), DATABASE),
    "collection": lambda keys, made: Place(keys.rows(made.database_key), made.id),
    "name": lambda keys, made: Place(keys.names(made.database_key), NAME),
    "version of tenants": lambda keys, _: Place(keys.catalog_version, is_read=False),
    "version of databases": lambda keys, _: Place(keys.tenant_version(TENANT), is_read=False),
    "version of collections": lambda keys, made: Place(keys.database_version(made.database_key), is_read=False),
    "number of changes": lambda keys, _: Place(keys.changes, is_read=False),
}


async def _make(http: httpx.AsyncClient, redis: Redis, keys: Keys) -> Made:
    (await http.post("/api/v2/tenants", json={"name": TENANT})).raise_for_status()
    (await http.post(DATABASES, json={"name": DATABASE})).raise_for_status()
    made = (await http.post(COLLECTIONS, json={"name": NAME})).raise_for_status().json()
    record = {"ids": ["a"], "embeddings": [[1.0, 2.0]], "metadatas": [{"color": "red"}]}
    (await http.post(f"{COLLECTIONS}/{made['id']}/add", json=record)).raise_for_status()
    row: bytes = await command(redis, "HGET", keys.databases(TENANT), DATABASE)
    return Made(made["id"], row.decode().partition('"key":"')[2].partition('"')[0])


async def _garble(redis: Redis, place: Place) -> None:
    garbled = b"\xffgarbled"
    if place.field is None:
        await command(redis, "SET", place.key, garbled)
    else:
        await command(redis, "HSET", place.key, place.field, garbled)


async def _until_back(http: httpx.AsyncClient, redis: Redis, place: Place) -> set[str]:
    """Asks for what the value belongs to, and for other things, until all is well; the messages of the refusals."""
    refused: set[str] = set()
    async with asyncio.timeout(BACK_S_MAX):
        while True:
            answer = await http.get(place.path)
            if answer.status_code != 200:
                assert answer.status_code == 503, answer.text
                refused.add(answer.json()["message"])
            elsewhere = await http.get(ELSEWHERE)
            assert elsewhere.status_code == 200, elsewhere.text
            call = ("GET", place.key) if place.field is None else ("HGET", place.key, place.field)
            if answer.status_code == 200 and not (await command(redis, *call) or b"\xff").startswith(b"\xff"):
                return refused
            await asyncio.sleep(0.1)


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(BACK_S_MAX):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.1)


async def _snapshots(cluster: Cluster) -> str:
    async with open_store(cluster.objects.url) as objects:
        return max([info.key async for info in objects.list(SNAPSHOTS)])


async def test_a_garbled_value_of_the_catalog_stops_what_it_belongs_to_until_it_is_back(cluster: Cluster) -> None:
    keys = Keys()
    timeout = httpx.Timeout(30)
    async with open_redis(cluster.redis.url) as redis, httpx.AsyncClient(base_url=cluster.url, timeout=timeout) as http:
        made = await _make(http, redis, keys)

        async def is_journaled() -> bool:
            return not await command(redis, "EXISTS", keys.database_pending(made.database_key))

        await _until(is_journaled)
        for what, place_of in PLACES.items():
            place = place_of(keys, made)
            await _garble(redis, place)
            refused = await _until_back(http, redis, place)
            assert bool(refused) == place.is_read, (what, refused)
            if what in ("tenant", "database", "collection"):
                assert any(message.startswith("Stored data damaged: ") for message in refused), (what, refused)
        before = await _snapshots(cluster)
        (await http.post(ELSEWHERE, json={"name": "later"})).raise_for_status()

        async def is_newer() -> bool:
            return await _snapshots(cluster) != before

        await _until(is_newer)
        found = (await http.get(f"{COLLECTIONS}/{NAME}")).raise_for_status().json()
        assert found["id"] == made.id
        records = (await http.post(f"{COLLECTIONS}/{made.id}/get", json={})).raise_for_status().json()
        assert records["ids"] == ["a"]
