"""JSON schemas of the bodies of requests.

Bodies that msgspec shapes describe themselves; the bodies of the record routes, which are read column by column, are
written down here.
"""

from __future__ import annotations

from typing import Final

import msgspec

from frontend.collections.requests import CollectionCreate, CollectionUpdate
from frontend.collections.schema_shape import GivenSchema
from frontend.parse.names import TENANT_NAME_LENGTH_MIN
from frontend.routes.databases import DatabaseCreate
from frontend.routes.erasures import ErasureBody
from frontend.routes.forks import Fork
from frontend.routes.functions import AddInput, Attach, Detach
from frontend.routes.keys import KeyCreate, KeyRotate
from frontend.routes.openapi.json_schema import (
    COUNT,
    JSON_OBJECT,
    TEXT,
    U32,
    JsonSchema,
    an_object,
    array,
    nullable,
    ref,
)
from frontend.routes.openapi.record_schemas import INCLUDES, METADATA, PATCH, VECTOR
from frontend.routes.plans import Overrides, PlanBody, PlanChoice
from frontend.routes.tenants import TenantCreate, TenantUpdate
from frontend.routes.transactions import ConditionalCommit
from shared.records.model import ReadLevel

SHAPED: Final = (
    TenantCreate,
    TenantUpdate,
    DatabaseCreate,
    CollectionCreate,
    CollectionUpdate,
    GivenSchema,
    Fork,
    KeyCreate,
    KeyRotate,
    ErasureBody,
    PlanBody,
    PlanChoice,
    Overrides,
    Attach,
    Detach,
    AddInput,
    ConditionalCommit,
)
"""The bodies that describe themselves, under the names of their classes."""

NAME: Final = {
    "type": "string",
    "description": "3 to 512 letters, digits, dots, dashes and underscores; or two such names joined by +.",
    "pattern": r"^[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9](\+[a-zA-Z0-9][a-zA-Z0-9._-]{1,510}[a-zA-Z0-9])?$",
}
READ_LEVEL: Final[JsonSchema] = {"type": "string", "enum": [level.value for level in ReadLevel]}
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
AS_OF: Final = {
    "anyOf": [{"type": "integer", "minimum": 0}, {"type": "string", "format": "date-time"}, {"type": "null"}],
    "description": "Reads the past: as of a position of the log, or a time. An extension of Chroma's API.",
}
DURABILITY: Final = {
    "type": ["string", "null"],
    "pattern": "^(disk|bucket|replicas:[1-9])$",
    "description": "The durability class that the write is acknowledged with. An extension of Chroma's API.",
}
SELECTORS: Final = {"ids": nullable(array(TEXT)), "where": WHERE, "where_document": WHERE}


def _write(embeddings: JsonSchema, metadata: JsonSchema, required: tuple[str, ...]) -> JsonSchema:
    """The body of an add, update or upsert with these columns of embeddings and metadata."""
    texts = nullable(array(nullable(TEXT)))
    return an_object(
        {
            "ids": array(TEXT),
            "embeddings": embeddings,
            "documents": texts,
            "uris": texts,
            "metadatas": nullable(array(nullable(metadata))),
            "durability": DURABILITY,
        },
        required,
    )


def _embeddings(vector: JsonSchema, encoded: JsonSchema) -> JsonSchema:
    """A column of embeddings: each row a `vector`, or each row `encoded`."""
    return {
        "description": "All rows as numbers, or all as base64 of little-endian float32. Where the server embeds, a "
        "document for every row may stand in their place.",
        "anyOf": [array(vector), array(encoded)],
    }


def _record_bodies() -> dict[str, JsonSchema]:
    full = _embeddings(VECTOR, TEXT)
    partial = nullable(_embeddings(nullable(VECTOR), nullable(TEXT)))
    get = SELECTORS | {"limit": nullable(U32), "offset": nullable(U32), "include": INCLUDES, "explain": EXPLAIN}
    return {
        "Add": _write(full, METADATA, ("ids", "embeddings")),
        "Upsert": _write(full, PATCH, ("ids", "embeddings")),
        "Update": _write(partial, PATCH, ("ids",)),
        "Delete": an_object(SELECTORS | {"limit": nullable(U32), "durability": DURABILITY}, ()),
        "Get": an_object(get | {"as_of": AS_OF}, ()),
        "ConditionalGet": an_object(get | {"read_token": nullable(COUNT)}, ()),
        "Query": an_object(
            SELECTORS
            | {
                "query_embeddings": array(VECTOR),
                "query_texts": array(TEXT) | {"description": "Instead of query_embeddings, where the server embeds."},
                "n_results": nullable(U32),
                "include": INCLUDES,
                "read_level": READ_LEVEL,
                "explain": EXPLAIN,
                "as_of": AS_OF,
            },
            ("query_embeddings",),
        ),
        "Search": an_object({"searches": array(JSON_OBJECT), "read_level": READ_LEVEL, "as_of": AS_OF}, ("searches",)),
        "ReadLevel": READ_LEVEL,
    }


def request_schemas() -> dict[str, JsonSchema]:
    """The bodies of requests, by name."""
    _, shaped = msgspec.json.schema_components(SHAPED, ref_template="#/components/schemas/{name}")
    schemas = shaped | _record_bodies()
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
