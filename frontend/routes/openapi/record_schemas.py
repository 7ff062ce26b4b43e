"""JSON schemas of what records consist of, in requests as in responses: vectors, metadata, the columns to include."""

from __future__ import annotations

from typing import Final

from frontend.routes.openapi.json_schema import TEXT, U32, array, nullable
from shared.records.model import Include

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
VECTOR: Final = array({"type": "number"})
INCLUDES: Final = array({"type": "string", "enum": [include.value for include in Include]})
