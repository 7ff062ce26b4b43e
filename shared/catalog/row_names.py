"""Names of the catalog's rows in Redis, for people and for the registry of damage. Objects are named by their keys;
these names look alike and are none.
"""

from __future__ import annotations

from typing import Final

from shared.catalog.slots import Slot

TENANTS_PREFIX: Final = "tenants/"
ROW_SUFFIX: Final = "/row"


def row_name(slot: Slot, row: str) -> str:
    """The name of a row of the slot: `tenants/<tenant>`, `tenants/<tenant>/<database>`, `<collection id>/row`. `row` is
    the name of the tenant or the database, or the id of the collection.
    """
    if slot.database is not None:
        return f"{row}{ROW_SUFFIX}"
    return f"{TENANTS_PREFIX}{row}" if slot.tenant is None else f"{TENANTS_PREFIX}{slot.tenant}/{row}"


def is_row_name(name: str) -> bool:
    """Whether `row_name` gave this name."""
    return name.startswith(TENANTS_PREFIX) or name.endswith(ROW_SUFFIX)
