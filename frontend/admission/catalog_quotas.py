"""The quotas of the catalog, with those of tenants that have their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.catalog.quotas import CatalogQuotas
from shared.tenancy.quotas import Quota

if TYPE_CHECKING:
    from frontend.admission.admission import Admission


@dataclass(frozen=True)
class PlannedQuotas(CatalogQuotas):
    """The process's own quotas, none of them above that of a tenant whose request is being answered."""

    admission: Admission | None = None

    def databases_of(self, tenant: str) -> int:
        """The most databases of this tenant."""
        return self._lower(Quota.DATABASES, self.databases, tenant, None)

    def collections_of(self, tenant: str, database: str) -> int:
        """The most collections of this database, by its name."""
        return self._lower(Quota.COLLECTIONS, self.collections, tenant, database)

    def _lower(self, quota: Quota, most: int, tenant: str, database: str | None) -> int:
        return most if self.admission is None else self.admission.quotas_of(tenant, database).lower(quota, most)
