"""The OpenAPI document of the API: every route, every body, every status."""

from __future__ import annotations

from typing import Any, Final

from frontend.access.access_table import TABLE, About, Metered
from frontend.collections.row_cache import DATABASE_NAME_LENGTH_MIN
from frontend.routes.openapi.json_schema import TEXT, U32, JsonSchema, ref
from frontend.routes.openapi.operations import Operation, operations
from frontend.routes.openapi.request_schemas import request_schemas
from frontend.routes.openapi.response_schemas import response_schemas
from frontend.routes.paths import COLLECTIONS

TITLE: Final = "chroma-frontend"
VERSION: Final = "1.0.0"

_REASONS: Final = {
    400: "The request is wrong",
    401: "No credential, or one that does not hold (while authentication is on)",
    403: "Not allowed by configuration, or the sender lacks an action",
    404: "Something the request names does not exist",
    408: "The body took too long to arrive",
    409: "The name is taken, or something has changed in between",
    410: "This API is no more",
    412: "The snapshot can no longer be read; begin anew",
    413: "The body is too large",
    415: "The body is not declared as JSON",
    422: "The body has the wrong shape, or a quota is exceeded",
    429: "The log is full, or a rate or the concurrency of the tenant is used up; try again after Retry-After seconds",
    500: "A fault of the server",
    503: "Something the server needs is away; nothing was done",
    504: "The deadline passed",
}
_ALWAYS: Final = (400, 500, 503, 504)
_WITH_BODY: Final = (408, 413, 415, 422)
_WITH_CREDENTIAL: Final = (401, 403)
_WITH_QUOTAS: Final = (429,)
_SCHEMES: Final[dict[str, JsonSchema]] = {
    "Bearer": {"type": "http", "scheme": "bearer"},
    "Basic": {"type": "http", "scheme": "basic"},
    "Token": {"type": "apiKey", "in": "header", "name": "x-chroma-token"},
}
"""The ways to send a credential, any of them. None is needed while authentication is off."""

_PARAMETERS: Final[dict[str, JsonSchema]] = {
    "tenant": {"type": "string", "minLength": 1, "examples": ["default_tenant"]},
    "database": {"type": "string", "minLength": DATABASE_NAME_LENGTH_MIN, "examples": ["default_database"]},
    "collection_id": {"type": "string", "format": "uuid"},
    "name": {"type": "string", "minLength": 1},
    "crn": {"type": "string", "minLength": 1},
    "key_id": {"type": "string", "pattern": "^[a-z0-9]{16}$"},
    "erasure_id": {"type": "string", "pattern": "^[0-9a-f]{32}$"},
    "plan": {"type": "string", "pattern": "^[a-z0-9][a-z0-9_-]{0,63}$"},
}
_QUERY: Final[dict[str, JsonSchema]] = {
    "limit": U32,
    "offset": U32,
    "read_level": ref("ReadLevel"),
    "as_of": TEXT,
    "tenant": TEXT,
    **dict.fromkeys(("actor", "action", "outcome", "from", "to", "cursor"), TEXT),
    "format": {"type": "string", "enum": ["json", "csv"]},
    "database": TEXT,
    "collection": {"type": "string", "format": "uuid"},
}


def document() -> dict[str, Any]:
    """The whole document, as JSON."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations():
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": TITLE, "version": VERSION, "description": "The Chroma v2 API, served by Polychrome."},
        "paths": paths,
        "components": {"schemas": request_schemas() | response_schemas(), "securitySchemes": _SCHEMES},
    }


def _described(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "tags": [_tag(operation)],
        "parameters": _parameters(operation),
        "responses": _responses(operation),
    } | _needed(operation)
    if operation.body is not None:
        described["requestBody"] = {"required": True, "content": _json(ref(operation.body))}
    return described


def _needed(operation: Operation) -> dict[str, Any]:
    """The credential and the actions that the operation needs."""
    access = TABLE.row(operation.method.upper(), operation.path)
    return {
        "security": [] if access.about is About.NOTHING else [{scheme: []} for scheme in _SCHEMES],
        "x-polychrome-actions": sorted(access.actions),
        "x-polychrome-any-of-actions": sorted(access.any_of),
    }


def _tag(operation: Operation) -> str:
    """The group under which a page shows the operation."""
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
    access = TABLE.row(operation.method.upper(), operation.path)
    if access.about is not About.NOTHING:
        statuses |= {*_WITH_CREDENTIAL}
    if access.metered not in (Metered.FREE, Metered.CONTROL):
        statuses |= {*_WITH_QUOTAS}
    for status in sorted(statuses):
        responses[str(status)] = {"description": _REASONS[status], "content": _json(ref("Error"))}
    if operation.id == "create_collection":
        responses["200"]["links"] = _links_to_a_collection()
    if operation.id == "healthcheck":
        responses["503"] = {"description": "Not ready", "content": _json(ref("Health"))}
    return responses


def _links_to_a_collection() -> dict[str, Any]:
    """Links from a new collection to the operations on it."""
    in_the_same_database = {name: f"$request.path.{name}" for name in ("tenant", "database")}
    by_key = {"collection_id": "$response.body#/id", "name": "$response.body#/name"}
    links: dict[str, Any] = {}
    for operation in operations():
        key = next((name for name in by_key if operation.path.startswith(f"{COLLECTIONS}/{{{name}}}")), None)
        if key is not None:
            links[operation.id] = {"operationId": operation.id, "parameters": in_the_same_database | {key: by_key[key]}}
    links["update_collection"]["parameters"]["name"] = by_key["collection_id"]
    return links


def _json(schema: JsonSchema) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
