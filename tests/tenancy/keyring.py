"""Keys of a running cluster for tests, and the requests that its routes take."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx

CONTROL = "/polychrome/v1"
ID = "11111111-1111-4111-8111-111111111111"


@dataclass
class Keyring:
    """Makes keys by the bootstrap key, and asks with them. `urls`: one per frontend."""

    urls: list[str]
    bootstrap: str
    client: httpx.Client = field(init=False)

    def __post_init__(self) -> None:
        self.client = httpx.Client(base_url=self.urls[0], timeout=30)

    def ask(
        self, key: str | None, method: str, path: str, body: Any = None, *, url: str | None = None, **headers: str
    ) -> httpx.Response:
        credential = {} if key is None else {"Authorization": f"Bearer {key}"}
        target = path if url is None else url + path
        return self.client.request(method, target, json=body, headers=credential | headers)

    def ask_from_elsewhere(
        self, key: str | None, method: str, path: str, body: Any = None, *, url: str | None = None
    ) -> httpx.Response:
        """As `ask`, from an address of its own on this machine: answers to those that failed before are delayed."""
        address = f"127.{random.randint(1, 250)}.{random.randint(0, 250)}.{random.randint(1, 250)}"
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        with httpx.Client(transport=httpx.HTTPTransport(local_address=address, verify=False), timeout=30) as client:
            return client.request(method, (url or self.urls[0]) + path, json=body, headers=headers)

    def do(self, method: str, path: str, body: Any = None) -> Any:
        """As the operator; it has to work."""
        answer = self.ask(self.bootstrap, method, path, body)
        assert answer.status_code < 300, answer.text
        return answer.json()

    def key(self, tenant: str | None, role: str | None = "write", **members: Any) -> str:
        return str(self.made(tenant, role, **members)["key"])

    def made(self, tenant: str | None, role: str | None = "write", **members: Any) -> Any:
        return self.do("POST", f"{CONTROL}/keys", {"tenant": tenant, "role": role, **members})

    def revoke(self, key: str) -> None:
        self.do("POST", f"{CONTROL}/keys/{key.split('_')[1]}/revoke", {})


@dataclass(frozen=True)
class Place:
    """A tenant with a database and a collection that holds one record."""

    tenant: str
    database: str
    collection_id: str
    name: str
    crn: str

    @property
    def database_path(self) -> str:
        return f"/api/v2/tenants/{self.tenant}/databases/{self.database}"

    @property
    def path(self) -> str:
        return f"{self.database_path}/collections/{self.collection_id}"


def furnished(keyring: Keyring, tenant: str | None = None) -> Place:
    """A new place; names but the tenant's are the same everywhere."""
    tenant = tenant or f"tenant-{uuid.uuid4().hex[:8]}"
    keyring.do("POST", "/api/v2/tenants", {"name": tenant})
    keyring.do("PATCH", f"/api/v2/tenants/{tenant}", {"resource_name": f"resource-{tenant}"})
    keyring.do("POST", f"/api/v2/tenants/{tenant}/databases", {"name": "main"})
    base = f"/api/v2/tenants/{tenant}/databases/main"
    made = keyring.do("POST", f"{base}/collections", {"name": "items"})
    place = Place(tenant, "main", made["id"], "items", f"resource-{tenant}:main:items")
    keyring.do("POST", f"{place.path}/add", {"ids": ["a"], "embeddings": [[1, 0]], "documents": [f"of {tenant}"]})
    return place


WRITE = {"ids": ["b"], "embeddings": [[0, 1]]}
BODIES: dict[str, Any] = {
    "/collections": {"name": "another"},
    "/databases": {"name": "another"},
    "/tenants": {"name": "another"},
    "/tenants/{tenant}": {"resource_name": "another"},
    "/collections/{name}": {"new_metadata": {"a": 1}},
    "/add": WRITE,
    "/update": WRITE,
    "/upsert": WRITE,
    "/delete": {"ids": ["nothing"]},
    "/get": {},
    "/query": {"query_embeddings": [[1, 0]], "n_results": 1},
    "/search": {"searches": [{}]},
    "/fork": {"new_name": "forked"},
    "/conditional/get": {},
    "/conditional/commit": {"operations": [{"operation": "upsert", "payload": WRITE}]},
    "/functions/attach": {"name": "f", "function_id": "record_counter", "output_collection": "out"},
    "/detach": {},
    "/add_input": {"input_collection_id": ID},
    "/keys": {"tenant": "nobody", "role": "read"},
    "/rotate": {},
    "/revoke": {},
    "/plans/{plan}": {"quotas": {"shards": 256}},
    "/plan": {"plan": None},
    "/quotas": {"quotas": {}},
}


def body_of(method: str, pattern: str) -> Any:
    """A body that the route takes."""
    if method not in ("POST", "PUT", "PATCH"):
        return None
    return next((BODIES[end] for end in sorted(BODIES, key=len, reverse=True) if pattern.endswith(end)), {})


def path_of(pattern: str, place: Place, **changes: str) -> str:
    """The pattern's path at a place."""
    values = {
        "tenant": place.tenant,
        "database": place.database,
        "collection_id": place.collection_id,
        "name": place.name,
        "crn": place.crn,
        "key_id": "a" * 16,
        "plan": "of-a-test",
    }
    for name, value in (values | changes).items():
        pattern = pattern.replace(f"{{{name}}}", value)
    return pattern
