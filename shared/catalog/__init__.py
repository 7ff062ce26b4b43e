"""The catalog: tenants, databases, collections."""

from shared.catalog.catalog import Catalog
from shared.catalog.cluster import Cluster
from shared.catalog.model import (
    DEFAULT_DATABASE,
    DEFAULT_DATABASE_ID,
    DEFAULT_TENANT,
    SHARDS_KEY,
    UNSET,
    Collection,
    Database,
    Function,
    NewCollection,
    Rebuild,
    Tenant,
    Unset,
)
from shared.log.state import Pointer

__all__ = [
    "DEFAULT_DATABASE",
    "DEFAULT_DATABASE_ID",
    "DEFAULT_TENANT",
    "SHARDS_KEY",
    "UNSET",
    "Catalog",
    "Cluster",
    "Collection",
    "Database",
    "Function",
    "NewCollection",
    "Pointer",
    "Rebuild",
    "Tenant",
    "Unset",
]
