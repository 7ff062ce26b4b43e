"""Quotas of the catalog: nobody fills Redis with names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared import limits
from shared.errors import QuotaExceeded


@dataclass(frozen=True, slots=True)
class CatalogQuotas:
    """The most tenants of the cluster, databases of a tenant, and collections of a database."""

    tenants: int = limits.TENANTS_MAX
    databases: int = limits.DATABASES_MAX
    collections: int = limits.COLLECTIONS_MAX


def quota_exceeded(what: str, action: str, most: int) -> QuotaExceeded:
    """The refusal of one more of something of which there are `most`. Official clients know it by its beginning."""
    return QuotaExceeded(
        f"Quota exceeded: '{what}' exceeded quota limit for action '{action}': "
        f"current usage of {most} exceeds limit of {most}"
    )


DEFAULT_QUOTAS: Final = CatalogQuotas()
