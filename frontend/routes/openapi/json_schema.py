"""The vocabulary of JSON schema in which the bodies of the API are described."""

from __future__ import annotations

from typing import Any, Final

from shared.limits import U32_MAX

JsonSchema = dict[str, Any]

U32: Final[JsonSchema] = {"type": "integer", "minimum": 0, "maximum": U32_MAX}
TEXT: Final[JsonSchema] = {"type": "string"}
UUID: Final[JsonSchema] = {"type": "string", "format": "uuid"}
COUNT: Final[JsonSchema] = {"type": "integer", "minimum": 0}
JSON_OBJECT: Final[JsonSchema] = {"type": "object"}


def ref(name: str) -> JsonSchema:
    """A named schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def array(items: JsonSchema) -> JsonSchema:
    """A list whose elements are `items`."""
    return {"type": "array", "items": items}


def nullable(schema: JsonSchema) -> JsonSchema:
    """`schema`, or null."""
    return {"anyOf": [schema, {"type": "null"}]}


def an_object(properties: dict[str, JsonSchema], required: tuple[str, ...] | None = None) -> JsonSchema:
    """An object with these members. All of them are required unless `required` names those that are."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties if required is None else required),
    }
