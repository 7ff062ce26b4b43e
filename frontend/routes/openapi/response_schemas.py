"""JSON schemas of the bodies of responses."""

from __future__ import annotations

from typing import Final

from frontend.routes.openapi.json_schema import COUNT, JSON_OBJECT, TEXT, UUID, JsonSchema, an_object, array, nullable
from frontend.routes.openapi.record_schemas import INCLUDES, METADATA
from shared.tenancy.usage import MEASURES

NUMBER: Final[JsonSchema] = nullable({"type": "number"})
"""A float, which is null when it is not finite."""

COLUMNS: Final[dict[str, JsonSchema]] = {
    "embeddings": array(NUMBER),
    "documents": TEXT,
    "uris": TEXT,
    "metadatas": METADATA,
}
"""The fields of a record beside its id; null where it was not asked for, or where the record has none."""


def response_schemas() -> dict[str, JsonSchema]:
    """The bodies of responses, by name."""
    data = _catalog() | _records() | _transactions() | _functions()
    return _system() | data | _control() | _erasures() | _plans() | _usage()


def _control() -> dict[str, JsonSchema]:
    time_s, names = nullable({"type": "number"}), nullable(array(TEXT))
    key: dict[str, JsonSchema] = {
        "id": TEXT,
        "name": TEXT,
        "tenant": nullable(TEXT),
        "databases": names,
        "collections": names,
        "role": nullable(TEXT),
        "actions": names,
        "created_s": {"type": "number"},
        "creator": TEXT,
        "expires_s": time_s,
        "revoked_s": time_s,
        "used_s": time_s,
        "older_until_s": time_s,
    }
    live: dict[str, JsonSchema] = {"live": {"type": "boolean"}}
    tenant: dict[str, JsonSchema] = {"name": TEXT, "resource_name": nullable(TEXT), "databases": COUNT, "keys": COUNT}
    return {
        "Key": an_object(key),
        "ChangedKey": an_object(key | live),
        "MadeKey": an_object({"key": TEXT} | key | live),
        "TenantDetail": an_object(tenant),
        "AuditPage": an_object({"events": array(JSON_OBJECT), "next": nullable(TEXT)}),
        "DeletedTenant": an_object({"name": TEXT, "keys_revoked": COUNT} | live),
    }


def _erasures() -> dict[str, JsonSchema]:
    place: dict[str, JsonSchema] = {"tenant": TEXT, "database": nullable(TEXT), "collection": nullable(UUID)}
    number: JsonSchema = {"type": "number"}
    common: dict[str, JsonSchema] = {"id": TEXT, **place, "requested_s": number, "state": TEXT}
    removed: dict[str, JsonSchema] = {"collection": UUID, "objects": JSON_OBJECT, "segments": array(TEXT)}
    receipt: dict[str, JsonSchema] = {
        "format": COUNT,
        "due_s": number,
        "done_s": number,
        "late": {"type": "boolean"},
        "barriers": JSON_OBJECT,
        "snapshot": COUNT,
        "removed": array(an_object(removed)),
        "remaining": array(an_object({"what": TEXT, "why": TEXT})),
        "sha256": TEXT,
    }
    hashes_or_count: JsonSchema = {"anyOf": [COUNT, array(TEXT)]}
    progress: dict[str, JsonSchema] = {"records": hashes_or_count, "collections": COUNT}
    return {
        "Erasure": an_object(common | progress | receipt, ("id", "tenant", "requested_s", "state")),
        "RequestedErasure": an_object(common | progress | {"live": {"type": "boolean"}}),
    }


def _plans() -> dict[str, JsonSchema]:
    quotas: JsonSchema = {"type": "object", "additionalProperties": nullable({"type": "number", "minimum": 0})}
    live: dict[str, JsonSchema] = {"live": {"type": "boolean"}}
    plan: dict[str, JsonSchema] = {"name": TEXT, "quotas": quotas}
    of_tenant: dict[str, JsonSchema] = {"tenant": TEXT, "plan": nullable(TEXT)}
    place: dict[str, JsonSchema] = {"database": nullable(TEXT), "collection": nullable(UUID), "quotas": quotas}
    places: JsonSchema = {"type": "object", "additionalProperties": quotas}
    return {
        "Plan": an_object(plan),
        "ChangedPlan": an_object(plan | live),
        "DeletedPlan": an_object({"name": TEXT} | live),
        "TenantPlan": an_object(of_tenant),
        "ChangedTenantPlan": an_object(of_tenant | live),
        "TenantQuotas": an_object(
            of_tenant | place | {"overrides": quotas, "databases": places, "collections": places}
        ),
        "ChangedQuotas": an_object({"tenant": TEXT} | place | live),
    }


def _usage() -> dict[str, JsonSchema]:
    amounts: dict[str, JsonSchema] = {measure: {"type": "integer", "minimum": 0} for measure in MEASURES}
    hour: dict[str, JsonSchema] = {"hour": TEXT, "tenant": TEXT, "final": {"type": "boolean"}}
    return {
        "UsageReport": an_object(
            {
                "from": TEXT,
                "to": TEXT,
                "hours": array(an_object(hour | amounts)),
                "totals": array(an_object({"tenant": TEXT} | amounts)),
            }
        ),
    }


def _system() -> dict[str, JsonSchema]:
    return {
        "Error": an_object({"error": TEXT, "message": TEXT}),
        "Nothing": {"type": "object", "maxProperties": 0},
        "Heartbeat": an_object({"nanosecond heartbeat": COUNT}),
        "Health": an_object(
            {"is_executor_ready": {"type": "boolean"}, "is_log_client_ready": {"type": "boolean"}, "status": TEXT}
        ),
        "PreFlight": an_object({"max_batch_size": COUNT, "supports_base64_encoding": {"type": "boolean"}}),
        "Identity": an_object({"user_id": TEXT, "tenant": TEXT, "databases": array(TEXT)}),
    }


def _catalog() -> dict[str, JsonSchema]:
    return {
        "Tenant": an_object({"name": TEXT, "resource_name": nullable(TEXT)}),
        "Database": an_object({"id": UUID, "name": TEXT, "tenant": TEXT}),
        "Collection": _collection(),
        "IndexingStatus": an_object(
            {
                "op_indexing_progress": {"type": "number", "minimum": 0, "maximum": 1},
                "num_unindexed_ops": COUNT,
                "num_indexed_ops": COUNT,
                "total_ops": COUNT,
            }
        ),
        "ForkCount": an_object({"count": COUNT}),
    }


def _records() -> dict[str, JsonSchema]:
    return {
        "Deleted": an_object({"deleted": COUNT}),
        "GetAnswer": _get_response({}),
        "QueryAnswer": _query_response(),
        "SearchAnswer": an_object(
            {name: array({}) for name in ("ids", "documents", "embeddings", "metadatas", "scores", "select")}
        ),
    }


def _transactions() -> dict[str, JsonSchema]:
    return {
        "ConditionalGetAnswer": _get_response({"read_token": COUNT}),
        "Committed": an_object({"first_inserted_record_offset": COUNT, "record_count": COUNT}),
    }


def _get_response(more: dict[str, JsonSchema]) -> JsonSchema:
    """The answer of a get, and `more` members of it."""
    columns = {name: nullable(array(nullable(value))) for name, value in COLUMNS.items()}
    members = {"ids": array(TEXT), **columns, "include": INCLUDES, **more}
    return an_object(members | {"explain": array(_explanation())}, tuple(members))


def _query_response() -> JsonSchema:
    """The answer of a query: in every column one list for each query vector."""
    columns = {name: nullable(array(array(nullable(value)))) for name, value in COLUMNS.items()}
    distances = nullable(array(array(NUMBER)))
    members = {"ids": array(array(TEXT)), **columns, "distances": distances, "include": INCLUDES}
    return an_object(members | {"explain": array(_explanation())}, tuple(members))


def _explanation() -> JsonSchema:
    """The schema of a worker's explanation of its answer."""
    part = {"part": TEXT, "rows": COUNT, "living": COUNT, "matching": COUNT, "undecided": {"type": "boolean"}}
    part |= {"beams": array(COUNT), "scans": COUNT, "examined": COUNT, "documents_read": COUNT}
    return an_object(
        {
            "worker": TEXT,
            "shard": COUNT,
            "position": COUNT,
            "segments": COUNT,
            "tail_rows": COUNT,
            "parts": array(an_object(part)),
            "milliseconds": {"type": "object", "additionalProperties": {"type": "number"}},
        }
    )


def _functions() -> dict[str, JsonSchema]:
    short = {"id": UUID, "name": TEXT, "function_name": TEXT}
    whole = short | {
        "input_collection_id": UUID,
        "output_collection": TEXT,
        "output_collection_id": UUID,
        "params": JSON_OBJECT,
        "tenant_id": TEXT,
        "database_id": UUID,
        "completion_offset": COUNT,
        "min_records_for_invocation": COUNT,
    }
    return {
        "Attached": an_object({"attached_function": an_object(short), "created": {"type": "boolean"}}),
        "AttachedFunction": an_object({"attached_function": an_object(whole)}),
        "Detached": an_object({"success": {"type": "boolean"}}),
    }


def _collection() -> JsonSchema:
    hnsw = {
        "space": {"type": "string", "enum": ["l2", "cosine", "ip"]},
        "ef_construction": COUNT,
        "ef_search": COUNT,
        "max_neighbors": COUNT,
        "resize_factor": {"type": "number"},
        "sync_threshold": COUNT,
    }
    configuration = {
        "hnsw": an_object(hnsw),
        "spann": {"type": "null"},
        "embedding_function": nullable(JSON_OBJECT),
    }
    return an_object(
        {
            "id": UUID,
            "name": TEXT,
            "configuration_json": an_object(configuration),
            "schema": an_object(
                {"defaults": JSON_OBJECT, "keys": JSON_OBJECT, "cmek": JSON_OBJECT}, ("defaults", "keys")
            ),
            "metadata": nullable(METADATA),
            "dimension": nullable(COUNT),
            "tenant": TEXT,
            "database": TEXT,
            "log_position": COUNT,
            "version": COUNT,
        }
    )
