"""Routes of tenants that Chroma has no routes for, below `/polychrome/v1`: list, show, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.parse.params import query_page
from frontend.routes.paths import CONTROL
from frontend.routes.tenants import missing_tenant
from frontend.routes.visible import listed_databases

if TYPE_CHECKING:
    from frontend.collections.row_cache import RowCache
    from frontend.http.request import Request
    from shared.catalog import Catalog, Tenant
    from shared.tenancy.api_keys import KeyRecord
    from shared.tenancy.key_store import KeyStore
    from shared.tenancy.plan_store import PlanStore

TENANTS: Final = CONTROL + "/tenants"


class TenantControlRoutes:
    """Handlers of the routes."""

    def __init__(self, catalog: Catalog, rows: RowCache, key_store: KeyStore, plan_store: PlanStore) -> None:
        self._catalog = catalog
        self._rows = rows
        self._key_store = key_store
        self._plan_store = plan_store

    def routes(self) -> list[Route]:
        """The routes of this group."""
        return [
            Route("GET", TENANTS, self.list_all),
            Route("GET", TENANTS + "/{tenant}", self.get),
            Route("DELETE", TENANTS + "/{tenant}", self.delete),
        ]

    async def list_all(self, request: Request) -> HttpResponse:
        """The tenants, by name."""
        limit, offset = query_page(request)
        tenants = (await self._catalog.tenants.all())[offset:]
        return json_response([_shown(tenant) for tenant in (tenants if limit is None else tenants[:limit])])

    async def get(self, request: Request) -> HttpResponse:
        """A tenant, with the number of its databases and of the keys that are bound to it, of those alone that are in
        the sender's scope.
        """
        name = request.path_params["tenant"]
        tenant = await self._catalog.tenants.get(name)
        if tenant is None:
            raise missing_tenant(name)
        databases = await listed_databases(self._catalog.databases, request.principal, name, None, 0)
        scope = request.principal.scope

        def counted(record: KeyRecord) -> bool:
            return record.tenant == name and record.revoked_s is None and record.scope().within(scope)

        keys = await self._key_store.all(counted)
        return json_response(_shown(tenant) | {"databases": len(databases), "keys": len(keys)})

    async def delete(self, request: Request) -> HttpResponse:
        """Deletes a tenant with all that it has, and revokes the keys that are bound to it: first the keys, so that
        nobody fills what is being emptied. Its plan and its quotas go last. May be repeated when it was not answered.
        """
        name = request.path_params["tenant"]
        keys = await self._key_store.all(lambda record: record.tenant == name and record.revoked_s is None)
        live = await self._key_store.revoke_all(keys)
        if not await self._catalog.tenants.delete(name) and not keys:
            raise missing_tenant(name)
        self._rows.clear()
        live &= await self._plan_store.forget_tenant(name)
        answer = {"name": name, "keys_revoked": len(keys), "live": live}
        return json_response(answer, 200 if live else 202)


def _shown(tenant: Tenant) -> dict[str, Any]:
    return {"name": tenant.name, "resource_name": tenant.resource_name}
