"""The operations of the API: one for every route, with its body, its answer and its failures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from frontend.routes.openapi.json_schema import JsonSchema, array, ref
from frontend.routes.paths import COLLECTION, COLLECTIONS, CONTROL, DATABASES, TENANTS

AUDIT_QUERY: Final = ("tenant", "actor", "action", "outcome", "from", "to", "limit", "cursor")


@dataclass(frozen=True, slots=True)
class Operation:
    """A method of a path. `answer` is the schema of its response, `body` the name of the schema of its body,
    `query` its query parameters, `failures` the error statuses that not every route has.
    """

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
    tenant, databases = TENANTS + "/{tenant}", DATABASES
    nothing, page = ref("Nothing"), ("limit", "offset")
    return [
        Operation("post", TENANTS, "create_tenant", nothing, "TenantCreate", failures=(409,)),
        Operation("get", tenant, "get_tenant", ref("Tenant"), failures=(404,)),
        Operation("patch", tenant, "update_tenant", nothing, "TenantUpdate", failures=(404, 409)),
        Operation("post", databases, "create_database", nothing, "DatabaseCreate", failures=(404, 409)),
        Operation("get", databases, "list_databases", array(ref("Database")), query=page),
        Operation("get", databases + "/{database}", "get_database", ref("Database"), failures=(404,)),
        Operation("delete", databases + "/{database}", "delete_database", nothing, failures=(404,)),
    ]


def _collections() -> list[Operation]:
    counted = DATABASES + "/{database}/collections_count"
    by_name, nothing, collection = COLLECTIONS + "/{name}", ref("Nothing"), ref("Collection")
    return [
        Operation("post", COLLECTIONS, "create_collection", collection, "CollectionCreate", failures=(409,)),
        Operation("get", COLLECTIONS, "list_collections", array(collection), query=("limit", "offset")),
        Operation("get", counted, "count_collections", {"type": "integer", "minimum": 0}),
        Operation("get", by_name, "get_collection", collection, failures=(404,)),
        Operation("delete", by_name, "delete_collection", nothing, failures=(404,)),
        Operation("put", by_name, "update_collection", nothing, "CollectionUpdate", failures=(404, 409)),
        Operation("get", COLLECTIONS + "/by-id/{collection_id}", "get_collection_by_id", collection, failures=(404,)),
        Operation("get", "/api/v2/collections/{crn}", "get_collection_by_crn", collection, failures=(404,)),
        Operation("get", COLLECTION + "/indexing_status", "indexing_status", ref("IndexingStatus"), failures=(404,)),
        Operation("post", COLLECTION + "/fork", "fork_collection", collection, "Fork", failures=(404, 409, 412)),
        Operation("get", COLLECTION + "/fork_count", "fork_count", ref("ForkCount"), failures=(404,)),
    ]


def _records() -> list[Operation]:
    nothing, full = ref("Nothing"), (404, 429)
    return [
        Operation("post", COLLECTION + "/add", "collection_add", nothing, "Add", 201, failures=full),
        Operation("post", COLLECTION + "/update", "collection_update", nothing, "Update", failures=full),
        Operation("post", COLLECTION + "/upsert", "collection_upsert", nothing, "Upsert", failures=full),
        Operation("post", COLLECTION + "/delete", "collection_delete", ref("Deleted"), "Delete", failures=full),
        Operation(
            "get",
            COLLECTION + "/count",
            "collection_count",
            {"type": "integer", "minimum": 0},
            query=("read_level", "as_of"),
            failures=(404, 412),
        ),
        Operation("post", COLLECTION + "/get", "collection_get", ref("GetAnswer"), "Get", failures=(404, 412)),
        Operation("post", COLLECTION + "/query", "collection_query", ref("QueryAnswer"), "Query", failures=(404, 412)),
        Operation(
            "post", COLLECTION + "/search", "collection_search", ref("SearchAnswer"), "Search", failures=(404, 412)
        ),
    ]


def _transactions() -> list[Operation]:
    base = COLLECTION + "/conditional"
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
    attached, function = COLLECTION + "/attached_functions/{name}", ref("AttachedFunction")
    return [
        Operation(
            "post", COLLECTION + "/functions/attach", "attach_function", ref("Attached"), "Attach", failures=(404, 409)
        ),
        Operation("get", COLLECTION + "/functions/{name}", "get_attached_function", function, failures=(404,)),
        Operation("post", attached + "/detach", "detach_function", ref("Detached"), "Detach", failures=(404,)),
        Operation("post", attached + "/add_input", "add_function_input", function, "AddInput", failures=(404, 409)),
    ]


def _control() -> list[Operation]:
    key, keys, tenants = ref("Key"), CONTROL + "/keys", CONTROL + "/tenants"
    page, control = ("limit", "offset"), ref("TenantDetail")
    return [
        Operation("post", keys, "create_key", ref("MadeKey"), "KeyCreate", 201, failures=(404,)),
        Operation("get", keys, "list_keys", array(key), query=("tenant",)),
        Operation("get", keys + "/{key_id}", "get_key", key, failures=(404,)),
        Operation("post", keys + "/{key_id}/rotate", "rotate_key", ref("MadeKey"), "KeyRotate", failures=(404,)),
        Operation("post", keys + "/{key_id}/revoke", "revoke_key", ref("ChangedKey"), failures=(404,)),
        Operation("get", CONTROL + "/audit", "search_audit", ref("AuditPage"), query=AUDIT_QUERY),
        Operation("get", tenants, "list_tenants", array(ref("Tenant")), query=page),
        Operation("get", tenants + "/{tenant}", "get_tenant_detail", control, failures=(404,)),
        Operation("delete", tenants + "/{tenant}", "delete_tenant", ref("DeletedTenant"), failures=(404,)),
    ]


def _plans() -> list[Operation]:
    plans, of_tenant = CONTROL + "/plans", CONTROL + "/tenants/{tenant}"
    plan, changed, here = ref("Plan"), ref("ChangedPlan"), ("database", "collection")
    return [
        Operation("get", plans, "list_plans", array(plan)),
        Operation("get", plans + "/{plan}", "get_plan", plan, failures=(404,)),
        Operation("put", plans + "/{plan}", "put_plan", changed, "PlanBody"),
        Operation("delete", plans + "/{plan}", "delete_plan", ref("DeletedPlan"), failures=(404, 409)),
        Operation("get", of_tenant + "/plan", "get_tenant_plan", ref("TenantPlan"), failures=(404,)),
        Operation(
            "put", of_tenant + "/plan", "set_tenant_plan", ref("ChangedTenantPlan"), "PlanChoice", failures=(404,)
        ),
        Operation("get", of_tenant + "/quotas", "get_quotas", ref("TenantQuotas"), query=here, failures=(404,)),
        Operation("put", of_tenant + "/quotas", "set_quotas", ref("ChangedQuotas"), "Overrides", failures=(404,)),
    ]


def _usage() -> list[Operation]:
    range_ = ("tenant", "from", "to", "format")
    return [Operation("get", CONTROL + "/usage", "get_usage", ref("UsageReport"), query=range_, failures=(404,))]


def _erasures() -> list[Operation]:
    erasures, erasure = CONTROL + "/erasures", ref("Erasure")
    return [
        Operation("post", erasures, "create_erasure", ref("RequestedErasure"), "ErasureBody", 202, failures=(404,)),
        Operation("get", erasures, "list_erasures", array(erasure)),
        Operation("get", erasures + "/{erasure_id}", "get_erasure", erasure, failures=(404,)),
    ]


def operations() -> list[Operation]:
    """Every operation of the API."""
    chroma = [*_system(), *_tenants(), *_collections(), *_records(), *_transactions(), *_functions()]
    return [*chroma, *_control(), *_erasures(), *_plans(), *_usage()]
