"""Quotas of the catalog: nobody fills Redis with names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared import limits
from shared.errors import QuotaExceeded


@dataclass(frozen=True)
class CatalogQuotas:
    """The most tenants of the cluster, databases of a tenant, and collections of a database. A process that knows of
    tenants with quotas of their own has other methods.
    """

    tenants: int = limits.TENANTS_MAX
    databases: int = limits.DATABASES_MAX
    collections: int = limits.COLLECTIONS_MAX

    def databases_of(self, tenant: str) -> int:
        """The most databases of this tenant."""
        return self.databases

    def collections_of(self, tenant: str, database: str) -> int:
        """The most collections of this database, by its name."""
        return self.collections


def quota_exceeded(what: str, action: str, usage: int, most: int) -> QuotaExceeded:
    """The refusal of `usage` of something of which there may be `most`. Official clients know it by its beginning."""
    return QuotaExceeded(
        f"Quota exceeded: '{what}' exceeded quota limit for action '{action}': "
        f"current usage of {usage} exceeds limit of {most}"
    )


DEFAULT_QUOTAS: Final = CatalogQuotas()
