"""The OpenAPI document of the API, complete: one operation per route, every body, every status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from frontend.collections.row_cache import DATABASE_NAME_LENGTH_MIN
from frontend.routes.openapi_schemas import U32, JsonSchema, all_schemas, array, ref

TITLE: Final = "chroma-frontend"
VERSION: Final = "1.0.0"

_COLLECTIONS: Final = "/api/v2/tenants/{tenant}/databases/{database}/collections"
_COLLECTION: Final = _COLLECTIONS + "/{collection_id}"

_REASONS: Final = {
    400: "The request is wrong",
    403: "Not allowed by configuration",
    404: "Something the request names does not exist",
    408: "The body took too long to arrive",
    409: "The name is taken, or something has changed in between",
    410: "This API is no more",
    412: "The snapshot can no longer be read; begin anew",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "The body has the wrong shape",
    429: "The log is full; try again after Retry-After seconds",
    500: "A fault of the server",
    503: "Something the server needs is away; nothing was done",
    504: "The deadline passed",
}
_ALWAYS: Final = (400, 500, 503, 504)
_WITH_BODY: Final = (408, 413, 415, 422)


_PARAMETERS: Final[dict[str, JsonSchema]] = {
    "tenant": {"type": "string", "minLength": 1, "examples": ["default_tenant"]},
    "database": {"type": "string", "minLength": DATABASE_NAME_LENGTH_MIN, "examples": ["default_database"]},
    "collection_id": {"type": "string", "format": "uuid"},
    "name": {"type": "string", "minLength": 1},
    "crn": {"type": "string", "minLength": 1},
}
_QUERY: Final[dict[str, JsonSchema]] = {"limit": U32, "offset": U32, "read_level": ref("ReadLevel")}


@dataclass(frozen=True, slots=True)
class Operation:
    """One method of one path. `answer` and `body` are schemas, `failures` statuses beyond those any route has."""

    method: str
    path: str
    id: str
    answer: JsonSchema | None
    body: str | None = None
    status: int = 200
    query: tuple[str, ...] = ()
    failures: tuple[int, ...] = ()


def _system() -> list[Operation]:
    return [
        Operation("get", "/api/v2", "root", ref("Heartbeat")),
        Operation("get", "/api/v2/heartbeat", "heartbeat", ref("Heartbeat")),
        Operation("get", "/api/v2/healthcheck", "healthcheck", ref("Health")),
        Operation("get", "/api/v2/version", "version", {"type": "string"}),
        Operation("get", "/api/v2/pre-flight-checks", "pre_flight_checks", ref("PreFlight")),
        Operation("get", "/api/v2/auth/identity", "get_user_identity", ref("Identity")),
        Operation("post", "/api/v2/reset", "reset", {"type": "boolean"}, failures=(403,)),
    ]


def _tenants() -> list[Operation]:
    tenant, databases = "/api/v2/tenants/{tenant}", "/api/v2/tenants/{tenant}/databases"
    nothing, page = ref("Nothing"), ("limit", "offset")
    return [
        Operation("post", "/api/v2/tenants", "create_tenant", nothing, "TenantCreate", failures=(409,)),
        Operation("get", tenant, "get_tenant", ref("Tenant"), failures=(404,)),
        Operation("patch", tenant, "update_tenant", nothing, "TenantUpdate", failures=(404, 409)),
        Operation("post", databases, "create_database", nothing, "DatabaseCreate", failures=(404, 409)),
        Operation("get", databases, "list_databases", array(ref("Database")), query=page),
        Operation("get", databases + "/{database}", "get_database", ref("Database"), failures=(404,)),
        Operation("delete", databases + "/{database}", "delete_database", nothing, failures=(404,)),
    ]


def _collections() -> list[Operation]:
    counted = "/api/v2/tenants/{tenant}/databases/{database}/collections_count"
    by_name, nothing, one = _COLLECTIONS + "/{name}", ref("Nothing"), ref("Collection")
    return [
        Operation("post", _COLLECTIONS, "create_collection", one, "CollectionCreate", failures=(409,)),
        Operation("get", _COLLECTIONS, "list_collections", array(one), query=("limit", "offset")),
        Operation("get", counted, "count_collections", {"type": "integer", "minimum": 0}),
        Operation("get", by_name, "get_collection", one, failures=(404,)),
        Operation("delete", by_name, "delete_collection", nothing, failures=(404,)),
        Operation("put", by_name, "update_collection", nothing, "CollectionUpdate", failures=(404, 409)),
        Operation("get", _COLLECTIONS + "/by-id/{collection_id}", "get_collection_by_id", one, failures=(404,)),
        Operation("get", "/api/v2/collections/{crn}", "get_collection_by_crn", one, failures=(404,)),
        Operation("get", _COLLECTION + "/indexing_status", "indexing_status", ref("IndexingStatus"), failures=(404,)),
        Operation("post", _COLLECTION + "/fork", "fork_collection", ref("Collection"), "Fork", failures=(404, 409)),
        Operation("get", _COLLECTION + "/fork_count", "fork_count", ref("ForkCount"), failures=(404,)),
    ]


def _records() -> list[Operation]:
    nothing, full = ref("Nothing"), (404, 429)
    return [
        Operation("post", _COLLECTION + "/add", "collection_add", nothing, "Add", 201, failures=full),
        Operation("post", _COLLECTION + "/update", "collection_update", nothing, "Update", failures=full),
        Operation("post", _COLLECTION + "/upsert", "collection_upsert", nothing, "Upsert", failures=full),
        Operation("post", _COLLECTION + "/delete", "collection_delete", ref("Deleted"), "Delete", failures=full),
        Operation(
            "get",
            _COLLECTION + "/count",
            "collection_count",
            {"type": "integer", "minimum": 0},
            query=("read_level",),
            failures=(404,),
        ),
        Operation("post", _COLLECTION + "/get", "collection_get", ref("GetAnswer"), "Get", failures=(404,)),
        Operation("post", _COLLECTION + "/query", "collection_query", ref("QueryAnswer"), "Query", failures=(404,)),
        Operation("post", _COLLECTION + "/search", "collection_search", ref("SearchAnswer"), "Search", failures=(404,)),
    ]


def _transactions() -> list[Operation]:
    base = _COLLECTION + "/conditional"
    read, committed = ref("ConditionalGetAnswer"), ref("Committed")
    return [
        Operation("post", base + "/get", "conditional_get", read, "ConditionalGet", failures=(404, 412)),
        Operation(
            "post",
            base + "/commit",
            "conditional_commit",
            committed,
            "ConditionalCommit",
            failures=(404, 409, 429),
        ),
    ]


def _functions() -> list[Operation]:
    attached, one = _COLLECTION + "/attached_functions/{name}", ref("AttachedFunction")
    return [
        Operation(
            "post", _COLLECTION + "/functions/attach", "attach_function", ref("Attached"), "Attach", failures=(404, 409)
        ),
        Operation("get", _COLLECTION + "/functions/{name}", "get_attached_function", one, failures=(404,)),
        Operation("post", attached + "/detach", "detach_function", ref("Detached"), "Detach", failures=(404,)),
        Operation("post", attached + "/add_input", "add_function_input", one, "AddInput", failures=(404, 409)),
    ]


def operations() -> list[Operation]:
    return [*_system(), *_tenants(), *_collections(), *_records(), *_transactions(), *_functions()]


def document() -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations():
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION, "description": "The Chroma v2 API, served by Polychrome."},
        "paths": paths,
        "components": {"schemas": all_schemas()},
    }


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [_tag(operation)],
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    }
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _json(ref(operation.body))}
    return described


def _tag(operation: Operation) -> str:
    if "{collection_id}" in operation.path:
        return "Record"
    return next((tag for tag in ("collection", "database", "tenant") if tag in operation.path), "system").title()


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    names = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    in_path = [{"name": name, "in": "path", "required": True, "schema": _PARAMETERS[name]} for name in names]
    in_query = [{"name": name, "in": "query", "required": False, "schema": _QUERY[name]} for name in operation.query]
    return in_path + in_query


def _responses(operation: Operation) -> dict[str, Any]:
    responses: dict[str, Any] = {}
    if operation.answer is not None:
        responses[str(operation.status)] = {"description": "Done", "content": _json(operation.answer)}
    statuses = {*_ALWAYS, *operation.failures, *(_WITH_BODY if operation.body else ())}
    for status in sorted(statuses):
        responses[str(status)] = {"description": _REASONS[status], "content": _json(ref("Error"))}
    if operation.id == "create_collection":
        responses["200"]["links"] = _links_to_a_collection()
    if operation.id == "healthcheck":
        responses["503"] = {"description": "Not ready", "content": _json(ref("Health"))}
    return responses


def _links_to_a_collection() -> dict[str, Any]:
    """From a new collection to what can be done with it."""
    place = {name: f"$request.path.{name}" for name in ("tenant", "database")}
    by_key = {"collection_id": "$response.body#/id", "name": "$response.body#/name"}
    links: dict[str, Any] = {}
    for operation in operations():
        key = next((name for name in by_key if operation.path.startswith(f"{_COLLECTIONS}/{{{name}}}")), None)
        if key is not None:
            links[operation.id] = {"operationId": operation.id, "parameters": place | {key: by_key[key]}}
    links["update_collection"]["parameters"]["name"] = by_key["collection_id"]
    return links


def _json(schema: JsonSchema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
