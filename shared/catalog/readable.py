"""Whether values of the catalog in Redis can be read. Bytes may change there, and nothing in Redis shows it: so whoever
reads a row reads it here. A row that cannot be read is as good as lost, for its own tenant, database or collection:
`shared.errors.Garbled` names it, and the log service puts it back (`shared.catalog.garbled_rows`).
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
import orjson

from shared.catalog.model import Function
from shared.catalog.row_names import row_name
from shared.catalog.slots import TENANTS, Slot
from shared.errors import Garbled

UNREADABLE: Final = (ValueError, KeyError, TypeError, AttributeError)
"""The errors of reading a row that is damaged."""


class _Tenant(msgspec.Struct):
    key: str
    resource_name: str | None


class _Database(msgspec.Struct):
    id: str
    key: str


class _Collection(msgspec.Struct):
    name: str
    metadata: dict[str, Any] | None
    configuration: dict[str, Any]
    schema: dict[str, Any]
    generation: int
    ancestors: list[str] = []
    function: dict[str, Any] | None = None


def _form(slot: Slot) -> type[msgspec.Struct]:
    if slot.database is not None:
        return _Collection
    return _Tenant if slot.tenant is None else _Database


def read_row(slot: Slot, row: str, value: bytes | str) -> dict[str, Any]:
    """The members of a row of the slot; `row` is its name or id. Raises Garbled."""
    try:
        fields: dict[str, Any] = orjson.loads(value)
        msgspec.convert(fields, _form(slot))
        if fields.get("function") is not None:
            Function.decode(fields["function"])
    except UNREADABLE as error:
        raise Garbled(f"the row cannot be read: {error!r}", row_name(slot, row)) from error
    return fields


def can_be_read(slot: Slot, value: bytes | str) -> bool:
    """Whether the value is a row of the slot."""
    try:
        read_row(slot, "", value)
    except Garbled:
        return False
    return True


def tenant_row(name: str, value: bytes | str) -> dict[str, Any]:
    """The members of a tenant's row. Raises Garbled."""
    return read_row(TENANTS, name, value)


def database_row(tenant: str, name: str, value: bytes | str) -> dict[str, Any]:
    """The members of a database's row. Raises Garbled."""
    return read_row(Slot(tenant=tenant), name, value)


def collection_row(collection_id: str, value: bytes | str) -> dict[str, Any]:
    """The members of a collection's row. Raises Garbled."""
    return read_row(Slot(database=""), collection_id, value)
