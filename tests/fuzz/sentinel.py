"""A collection that nobody may change, beside one that the fuzzer is aimed at: same tenant, same database."""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

_RECORDS = {
    "ids": ["a", "b", "c"],
    "embeddings": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
    "documents": ["one", None, "three"],
    "metadatas": [{"n": 1}, {"s": "x", "tags": ["y"]}, None],
}
_EVERYTHING = {"include": ["documents", "metadatas", "embeddings", "uris"]}


@dataclass(frozen=True)
class Sentinel:
    client: httpx.Client
    database: str
    watched: dict[str, Any]
    target_id: str
    content: dict[str, Any]

    @property
    def base(self) -> str:
        return f"/api/v2/tenants/default_tenant/databases/{self.database}/collections"

    def check(self) -> None:
        """The watched collection and its records are what they were."""
        got = self.client.post(f"{self.base}/{self.watched['id']}/get", json=_EVERYTHING)
        assert got.status_code == 200, got.text
        assert got.json() == self.content
        described = self.client.get(f"{self.base}/{self.watched['name']}").json()
        for member in ("id", "name", "metadata", "configuration_json", "dimension", "schema"):
            assert described[member] == self.watched[member]


@pytest.fixture
def sentinel(server_client: httpx.Client) -> Iterator[Sentinel]:
    database = f"fuzz-{uuid.uuid4().hex}"
    server_client.post("/api/v2/tenants/default_tenant/databases", json={"name": database}).raise_for_status()
    base = f"/api/v2/tenants/default_tenant/databases/{database}/collections"
    ids = {}
    for name in ("watched", "target"):
        ids[name] = (
            server_client.post(base, json={"name": name, "metadata": {"kind": name}}).raise_for_status().json()["id"]
        )
        server_client.post(f"{base}/{ids[name]}/add", json=_RECORDS).raise_for_status()
    watched = server_client.get(f"{base}/watched").raise_for_status().json()
    content = server_client.post(f"{base}/{ids['watched']}/get", json=_EVERYTHING).raise_for_status().json()
    assert content["ids"] == _RECORDS["ids"]
    guard = Sentinel(server_client, database, watched, ids["target"], content)
    yield guard
    guard.check()
