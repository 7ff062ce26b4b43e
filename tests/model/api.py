"""The v2 API as the state machine uses it: one method per request, answers parsed, refusals as (status, error)."""

from typing import Any

import httpx

from tests.model.reference import Row


class Refused(Exception):
    """The server answered with an error."""

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(f"{status} {error}: {message}")
        self.status = status


class Api:
    def __init__(self, client: httpx.Client, database: str) -> None:
        self._client = client
        self._base = f"/api/v2/tenants/default_tenant/databases/{database}"
        self._call("POST", "/api/v2/tenants/default_tenant/databases", {"name": database})

    def create(self, name: str, space: str, metadata: dict[str, Any] | None, get_or_create: bool = False) -> Any:
        body = {"name": name, "metadata": metadata, "get_or_create": get_or_create}
        return self._call("POST", f"{self._base}/collections", {**body, "configuration": {"hnsw": {"space": space}}})

    def collection(self, name: str) -> Any:
        return self._call("GET", f"{self._base}/collections/{name}")

    def collections(self) -> Any:
        return self._call("GET", f"{self._base}/collections")

    def collections_count(self) -> Any:
        return self._call("GET", f"{self._base}/collections_count")

    def fork(self, collection_id: str, name: str) -> Any:
        return self._call("POST", f"{self._base}/collections/{collection_id}/fork", {"new_name": name})

    def drop(self, name: str) -> None:
        self._call("DELETE", f"{self._base}/collections/{name}")

    def modify(self, collection_id: str, **changes: Any) -> None:
        self._call("PUT", f"{self._base}/collections/{collection_id}", changes)

    def write(self, collection_id: str, operation: str, rows: list[Row]) -> None:
        columns: dict[str, list[Any]] = {
            "embeddings": [row.embedding for row in rows],
            "documents": [row.document for row in rows],
            "uris": [row.uri for row in rows],
            "metadatas": [row.metadata for row in rows],
        }
        needed = () if operation == "update" else ("embeddings",)
        body: dict[str, Any] = {
            name: values
            for name, values in columns.items()
            if name in needed or any(value is not None for value in values)
        }
        body["ids"] = [row.id for row in rows]
        self.records(collection_id, operation, body)

    def records(self, collection_id: str, action: str, body: dict[str, Any]) -> Any:
        return self._call("POST", f"{self._base}/collections/{collection_id}/{action}", body)

    def count(self, collection_id: str) -> Any:
        return self._call("GET", f"{self._base}/collections/{collection_id}/count")

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        response = self._client.request(method, path, json=body)
        if response.is_success:
            return response.json()
        error = response.json()
        raise Refused(response.status_code, error["error"], error["message"])
