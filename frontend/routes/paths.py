"""The paths below which the groups of routes lie; `{name}` stands for a path parameter."""

from __future__ import annotations

from typing import Final

TENANTS: Final = "/api/v2/tenants"
DATABASES: Final = TENANTS + "/{tenant}/databases"
CONTROL: Final = "/polychrome/v1"
COLLECTIONS: Final = DATABASES + "/{database}/collections"
COLLECTION: Final = COLLECTIONS + "/{collection_id}"
