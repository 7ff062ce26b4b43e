"""JSON schemas of the API's bodies and answers.

Bodies that msgspec shapes describe themselves; those of records, which are read column by column, are written
down here.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from frontend.collections.requests import CollectionCreate, CollectionUpdate
from frontend.collections.schema_shape import GivenSchema
from frontend.parse.names import TENANT_NAME_LENGTH_MIN
from frontend.routes.databases import DatabaseCreate
from frontend.routes.forks import Fork
from frontend.routes.functions import AddInput, Attach, Detach
from frontend.routes.tenants import TenantCreate, TenantUpdate
from frontend.routes.transactions import ConditionalCommit
from shared.limits import U32_MAX
from shared.records.model import Include

JsonSchema = dict[str, Any]

SHAPED: Final = (
    TenantCreate,
    TenantUpdate,
    DatabaseCreate,
    CollectionCreate,
    CollectionUpdate,
    GivenSchema,
    Fork,
    Attach,
    Detach,
    AddInput,
    ConditionalCommit,
)

U32: Final[JsonSchema] = {"type": "integer", "minimum": 0, "maximum": U32_MAX}
TEXT: Final[JsonSchema] = {"type": "string"}
UUID: Final[JsonSchema] = {"type": "string", "format": "uuid"}
COUNT: Final[JsonSchema] = {"type": "integer", "minimum": 0}
JSON_OBJECT: Final[JsonSchema] = {"type": "object"}


def ref(name: str) -> JsonSchema:
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: JsonSchema) -> JsonSchema:
    return {"type": "array", "items": items}


def nullable(schema: JsonSchema) -> JsonSchema:
    return {"anyOf": [schema, {"type": "null"}]}


def an_object(properties: dict[str, JsonSchema], required: tuple[str, ...] | None = None) -> JsonSchema:
    """All members are required unless `required` names those that are."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
    }


SPARSE: Final = {
    "type": "object",
    "properties": {
        "indices": array(U32),
        "values": array({"type": "number"}),
        "tokens": nullable(array(TEXT)),
        "#type": {"const": "sparse_vector"},
    },
    "required": ["indices", "values"],
}
METADATA_VALUE: Final = {
    "anyOf": [
        TEXT,
        {"type": "boolean"},
        {"type": "number"},
        array(TEXT),
        array({"type": "boolean"}),
        array({"type": "number"}),
        SPARSE,
    ]
}
METADATA: Final = {"type": "object", "additionalProperties": METADATA_VALUE}
PATCH: Final = {"type": "object", "additionalProperties": nullable(METADATA_VALUE)}
NAME: Final = {
    "type": "string",
    "description": "3 to 512 letters, digits, dots, dashes and underscores; or two such names joined by +.",
    "pattern": r"^[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9](\+[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9])?$",
}
VECTOR: Final = array({"type": "number"})
INCLUDES: Final = array({"type": "string", "enum": [include.value for include in Include]})
WHERE: Final = {
    "description": 'A filter with exactly one member: {"key": value}, {"key": {"$operator": operand}}, {"$and": [..]} '
    'or {"$or": [..]}. null is no filter.',
    "anyOf": [JSON_OBJECT, {"type": "null"}],
}
EXPLAIN: Final = {
    "type": "boolean",
    "default": False,
    "description": "Adds to the answer what each worker did for it. An extension of Chroma's API.",
}
SELECTORS: Final = {"ids": nullable(array(TEXT)), "where": WHERE, "where_document": WHERE}


def _write(embeddings: JsonSchema, metadata: JsonSchema, required: tuple[str, ...]) -> JsonSchema:
    texts = nullable(array(nullable(TEXT)))
    return an_object(
        {
            "ids": array(TEXT),
            "embeddings": embeddings,
            "documents": texts,
            "uris": texts,
            "metadatas": nullable(array(nullable(metadata))),
        },
        required,
    )


def _embeddings(vector: JsonSchema, encoded: JsonSchema) -> JsonSchema:
    return {
        "description": "All rows as numbers, or all as base64 of little-endian float32. Where the server embeds, a "
        "document for every row may stand in their place.",
        "anyOf": [array(vector), array(encoded)],
    }


def _records() -> dict[str, JsonSchema]:
    full = _embeddings(VECTOR, TEXT)
    partial = nullable(_embeddings(nullable(VECTOR), nullable(TEXT)))
    level = {"type": "string", "enum": ["index_and_wal", "index_only", "index_and_bounded_wal"]}
    get = SELECTORS | {"limit": nullable(U32), "offset": nullable(U32), "include": INCLUDES, "explain": EXPLAIN}
    return {
        "Add": _write(full, METADATA, ("ids", "embeddings")),
        "Upsert": _write(full, PATCH, ("ids", "embeddings")),
        "Update": _write(partial, PATCH, ("ids",)),
        "Delete": an_object(SELECTORS | {"limit": nullable(U32)}, ()),
        "Get": an_object(get, ()),
        "ConditionalGet": an_object(get | {"read_token": nullable(COUNT)}, ()),
        "Query": an_object(
            SELECTORS
            | {
                "query_embeddings": array(VECTOR),
                "query_texts": array(TEXT) | {"description": "Instead of query_embeddings, where the server embeds."},
                "n_results": nullable(U32),
                "include": INCLUDES,
                "read_level": level,
                "explain": EXPLAIN,
            },
            ("query_embeddings",),
        ),
        "Search": an_object({"searches": array(JSON_OBJECT), "read_level": level}, ("searches",)),
        "ReadLevel": level,
    }


def _column(row: JsonSchema) -> JsonSchema:
    return nullable(array(nullable(row)))


def _explanation() -> JsonSchema:
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


def _answers() -> dict[str, JsonSchema]:
    number = nullable({"type": "number"})
    columns = {
        "embeddings": array(number),
        "documents": TEXT,
        "uris": TEXT,
        "metadatas": METADATA,
    }
    get = {"ids": array(TEXT)} | {name: _column(row) for name, row in columns.items()} | {"include": INCLUDES}
    query = {"ids": array(array(TEXT))} | {name: nullable(array(array(nullable(row)))) for name, row in columns.items()}
    query |= {"distances": nullable(array(array(number))), "include": INCLUDES}
    return {
        "Error": an_object({"error": TEXT, "message": TEXT}),
        "Nothing": {"type": "object", "maxProperties": 0},
        "Heartbeat": an_object({"nanosecond heartbeat": COUNT}),
        "Health": an_object(
            {"is_executor_ready": {"type": "boolean"}, "is_log_client_ready": {"type": "boolean"}, "status": TEXT}
        ),
        "PreFlight": an_object({"max_batch_size": COUNT, "supports_base64_encoding": {"type": "boolean"}}),
        "Identity": an_object({"user_id": TEXT, "tenant": TEXT, "databases": array(TEXT)}),
        "Tenant": an_object({"name": TEXT, "resource_name": nullable(TEXT)}),
        "Database": an_object({"id": UUID, "name": TEXT, "tenant": TEXT}),
        "Collection": _collection(),
        "Deleted": an_object({"deleted": COUNT}),
        "SearchAnswer": an_object(
            {name: array({}) for name in ("ids", "documents", "embeddings", "metadatas", "scores", "select")}
        ),
        "ForkCount": an_object({"count": COUNT}),
        "GetAnswer": an_object(get | {"explain": array(_explanation())}, tuple(get)),
        "ConditionalGetAnswer": an_object(
            get | {"read_token": COUNT, "explain": array(_explanation())}, (*get, "read_token")
        ),
        "Committed": an_object({"first_inserted_record_offset": COUNT, "record_count": COUNT}),
        "QueryAnswer": an_object(query | {"explain": array(_explanation())}, tuple(query)),
        "IndexingStatus": an_object(
            {
                "op_indexing_progress": {"type": "number", "minimum": 0, "maximum": 1},
                "num_unindexed_ops": COUNT,
                "num_indexed_ops": COUNT,
                "total_ops": COUNT,
            }
        ),
    }


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


def all_schemas() -> dict[str, JsonSchema]:
    """Every named schema of the document."""
    _, shaped = msgspec.json.schema_components(SHAPED, ref_template="#/components/schemas/{name}")
    schemas = shaped | _records() | _answers() | _functions()
    schemas["CollectionCreate"]["properties"] |= {
        "metadata": nullable(METADATA),
        "schema": nullable(ref("GivenSchema")),
    }
    schemas["TenantCreate"]["properties"]["name"] = TEXT | {"minLength": TENANT_NAME_LENGTH_MIN}
    schemas["DatabaseCreate"]["properties"]["name"] = NAME
    schemas["CollectionCreate"]["properties"]["name"] = NAME
    schemas["CollectionUpdate"]["properties"]["new_name"] = nullable(NAME)
    schemas["CollectionUpdate"]["properties"]["new_metadata"] = nullable(PATCH)
    return schemas
