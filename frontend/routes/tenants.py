"""Routes of tenants: created once, given a resource name once, never deleted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from frontend.http.responses import HttpResponse, empty_response, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.names import check_new_tenant_name
from frontend.parse.shapes import shaped
from frontend.parse.text_limits import utf8_bytes
from frontend.request_limits import check_limit
from frontend.routes.paths import TENANTS
from shared.errors import AlreadyExists, NotFound

if TYPE_CHECKING:
    from frontend.http.request import Request
    from shared.catalog.tenants import Tenants


class TenantCreate(msgspec.Struct, frozen=True):
    """Body of POST /tenants."""

    name: str


class TenantUpdate(msgspec.Struct, frozen=True):
    """Body of PATCH /tenants/{tenant}."""

    resource_name: str


def missing_tenant(name: str) -> NotFound:
    """The 404 of a tenant that nobody has created."""
    return NotFound(f"Tenant [{name}] not found")


class TenantRoutes:
    """Handlers of the tenant routes."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants = tenants

    def routes(self) -> list[Route]:
        """The routes of this group."""
        return [
            Route("POST", TENANTS, self.create),
            Route("GET", TENANTS + "/{tenant}", self.get),
            Route("PATCH", TENANTS + "/{tenant}", self.update),
        ]

    async def create(self, request: Request) -> HttpResponse:
        """Creates a tenant; 409 when there is one of that name."""
        body = shaped(await read_json(request), TenantCreate)
        check_limit("bytes of a name", utf8_bytes(body.name), request.limits.name_bytes_max, "name")
        check_new_tenant_name(body.name)
        request.subject = request.subject_tenant = body.name
        await self._tenants.create(body.name)
        return empty_response()

    async def get(self, request: Request) -> HttpResponse:
        """A tenant and its resource name, null before it was set."""
        name = request.path_params["tenant"]
        tenant = await self._tenants.get(name)
        if tenant is None:
            raise missing_tenant(name)
        return json_response({"name": tenant.name, "resource_name": tenant.resource_name})

    async def update(self, request: Request) -> HttpResponse:
        """Sets the resource name; to set an equal name again is fine, another name is 409."""
        body = shaped(await read_json(request), TenantUpdate)
        size = utf8_bytes(body.resource_name)
        check_limit("bytes of a name", size, request.limits.name_bytes_max, "resource_name")
        name = request.path_params["tenant"]
        if await self._tenants.get(name) is None:
            raise missing_tenant(name)
        if not await self._tenants.set_resource_name(name, body.resource_name):
            raise AlreadyExists("Failed to set resource name")
        return empty_response()
