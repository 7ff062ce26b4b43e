"""Quotas of what there may be: of databases, collections, forks, functions, shards; over a real cluster."""

from __future__ import annotations

import asyncio
import os
import subprocess
import time
from typing import Any

import httpx
import pytest
from chromadb.errors import ChromaError

from shared.redis.client import open_redis
from shared.redis.keys import Keys
from shared.tenancy.stored import StoredAmounts, StoredSums, StoredTable
from tests.clients.test_javascript import PACKAGE, node
from tests.cluster.waiting import wait_until
from tests.tenancy.conftest import Guarded
from tests.tenancy.keyring import CONTROL, Keyring, Place, furnished
from tests.tenancy.test_clients import TOKEN, client_of

__all__ = ["node"]


def given(keyring: Keyring, **quotas: Any) -> tuple[Place, str]:
    """A place of a tenant with these quotas, which hold already, and a key for all of it."""
    place = furnished(keyring)
    key = keyring.key(place.tenant, "admin")
    keyring.do("PUT", f"{CONTROL}/tenants/{place.tenant}/quotas", {"quotas": quotas | {"dimensions": 2}})
    wide = {"ids": ["x"], "embeddings": [[1.0, 2.0, 3.0]]}
    wait_until(lambda: keyring.ask(key, "POST", place.path + "/add", wide).status_code == 422, "quotas that hold", 60)
    return place, key


def refused(answer: httpx.Response, what: str, action: str, usage: int, most: int) -> bool:
    assert answer.status_code == 422, answer.text
    assert answer.json() == {
        "error": "ChromaError",
        "message": f"Quota exceeded: '{what}' exceeded quota limit for action '{action}': "
        f"current usage of {usage} exceeds limit of {most}",
    }
    return True


def test_databases_and_collections_are_bounded_and_another_tenants_are_not(keyring: Keyring, other: Place) -> None:
    place, key = given(keyring, databases=2, collections=2)
    databases, collections = f"/api/v2/tenants/{place.tenant}/databases", f"{place.database_path}/collections"
    assert keyring.ask(key, "POST", databases, {"name": "second"}).status_code == 200
    assert refused(
        keyring.ask(key, "POST", databases, {"name": "third"}), "Number of databases", "Create database", 2, 2
    )
    assert keyring.ask(key, "POST", collections, {"name": "second"}).status_code == 200
    third = keyring.ask(key, "POST", collections, {"name": "third"})
    assert refused(third, "Number of collections", "Create collection", 2, 2)
    assert keyring.ask(key, "POST", collections, {"name": "second", "get_or_create": True}).status_code == 200
    assert keyring.ask(key, "DELETE", collections + "/second").status_code == 200
    assert keyring.ask(key, "POST", collections, {"name": "third"}).status_code == 200
    for number in range(4):
        keyring.do("POST", f"{other.database_path}/collections", {"name": f"number-{number}"})


def test_forks_and_functions_are_bounded(keyring: Keyring) -> None:
    place, key = given(keyring, forks=1, functions=1)
    assert keyring.ask(key, "POST", place.path + "/fork", {"new_name": "first"}).status_code == 200
    second = keyring.ask(key, "POST", place.path + "/fork", {"new_name": "second"})
    assert refused(second, "Number of forks", "Fork Collection", 2, 1)

    collections = f"{place.database_path}/collections"
    another = keyring.ask(key, "POST", collections, {"name": "another"}).json()["id"]

    def attach(collection: str, output: str) -> httpx.Response:
        body = {"name": "f", "function_id": "record_counter", "output_collection": output}
        return keyring.ask(key, "POST", f"{collections}/{collection}/functions/attach", body)

    by_id = f"{collections}/by-id/{place.collection_id}"
    wait_until(lambda: keyring.ask(key, "GET", by_id).json()["version"] > 0, "a compacted input, which makes a job", 60)
    assert attach(place.collection_id, "counts").status_code == 200
    assert attach(place.collection_id, "counts").status_code == 200
    assert refused(attach(another, "more"), "Number of functions", "Create attached function", 2, 1)
    detached = f"{place.path}/attached_functions/f/detach"
    assert keyring.ask(key, "POST", detached, {"delete_output": True}).status_code == 200
    assert attach(another, "more").status_code == 200


def test_shards_and_the_bytes_of_rows_and_names_are_bounded(keyring: Keyring) -> None:
    place, key = given(keyring, shards=2, collection_bytes=100, name_bytes=5)
    collections = f"{place.database_path}/collections"

    def make(shards: int, **metadata: Any) -> httpx.Response:
        body = {"name": f"of-{shards}", "metadata": {"polychrome:shards": shards, **metadata}}
        return keyring.ask(key, "POST", collections, body)

    made = make(2)
    assert made.status_code == 200
    assert refused(make(3), "Number of shards", "Create collection", 3, 2)
    more = {"new_metadata": {"polychrome:shards": 4}}
    updated = keyring.ask(key, "PUT", f"{collections}/{made.json()['id']}", more)
    assert refused(updated, "Number of shards", "Update collection", 4, 2)
    assert make(1, text="x" * 100).json()["message"].startswith("Quota exceeded: 'bytes' exceeded")
    body = {"name": "a long name", "function_id": "record_counter", "output_collection": "counts"}
    named = keyring.ask(key, "POST", place.path + "/functions/attach", body)
    assert refused(named, "bytes of a name", "Create attached function", 11, 5)


def test_a_quota_of_no_shards_makes_no_collections_and_harms_none(keyring: Keyring) -> None:
    place, key = given(keyring, shards=0)
    collections = f"{place.database_path}/collections"
    for body in ({"name": "made"}, {"name": "made", "metadata": {"polychrome:shards": 1}}):
        assert refused(keyring.ask(key, "POST", collections, body), "Number of shards", "Create collection", 1, 0)
    assert [each["name"] for each in keyring.ask(key, "GET", collections).json()] == ["items"]


def test_the_python_client_raises_its_own_exception_with_the_message(keyring: Keyring) -> None:
    place, key = given(keyring, collections=1)
    client = client_of(keyring, place, chroma_client_auth_provider=TOKEN, chroma_client_auth_credentials=key)
    with pytest.raises(ChromaError, match="Quota exceeded: 'Number of collections'"):
        client.create_collection("second")


def test_the_javascript_client_raises_its_own_exceptions(node: str, keyring: Keyring) -> None:
    place, key = given(keyring, collections=1, reads_per_s=2)
    environ = {**os.environ, "SERVER_URL": keyring.urls[0], "KEY": key, "TENANT": place.tenant}
    ran = subprocess.run(
        [node, "--test", "quotas.test.mjs"], cwd=PACKAGE, env=environ, capture_output=True, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_a_full_collection_takes_deletes_alone_and_has_room_again_after_them(keyring: Keyring) -> None:
    place, key = given(keyring)
    quotas = {"quotas": {"records": 3}, "collection": place.collection_id}
    keyring.do("PUT", f"{CONTROL}/tenants/{place.tenant}/quotas", quotas)

    def add(*ids: str) -> int:
        body = {"ids": ids, "embeddings": [[1.0, 0.0]] * len(ids)}
        return keyring.ask(key, "POST", place.path + "/upsert", body).status_code

    wait_until(lambda: add("b", "c", "d", "e") == 422, "quotas that hold", 60)
    keyring.ask(key, "POST", place.path + "/delete", {"ids": ["b", "c", "d", "e"]})
    wait_until(lambda: add("b", "c") == 200, "room for two records", 60)
    wait_until(lambda: add("d") == 422, "a full collection", 60)
    assert keyring.ask(key, "POST", place.path + "/update", {"ids": ["b"], "documents": ["changed"]}).status_code == 200
    assert keyring.ask(key, "POST", place.path + "/fork", {"new_name": "forked"}).status_code == 422
    assert keyring.ask(key, "POST", place.path + "/delete", {"ids": ["a", "b"]}).status_code == 200
    wait_until(lambda: add("d") == 200, "room for a record", 60)


def test_a_tenant_is_full_by_what_the_log_service_has_counted(guarded: Guarded, keyring: Keyring) -> None:
    place, key = given(keyring, records=1000, bytes=10**9)
    counted = StoredAmounts(StoredSums(1000, 500), {place.database: StoredSums(1000, 500)}, time.time())

    async def count() -> None:
        async with open_redis(guarded.cluster.redis.url) as redis:
            await StoredTable(redis, Keys()).write(place.tenant, counted)

    def add() -> httpx.Response:
        return keyring.ask(key, "POST", place.path + "/add", {"ids": ["b"], "embeddings": [[1.0, 0.0]]})

    def full() -> bool:
        asyncio.run(count())  # again and again: the log service counts, too
        return add().status_code == 422

    wait_until(full, "a full tenant", 60)
    assert refused(add(), "Number of records", "Add", 1001, 1000)
    assert keyring.ask(key, "POST", place.path + "/delete", {"ids": ["a"]}).status_code == 200
