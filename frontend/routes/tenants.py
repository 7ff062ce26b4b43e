"""Tenants: created once, given a resource name once, never deleted."""

from __future__ import annotations

import msgspec

from frontend.http.request import Request
from frontend.http.responses import HttpResponse, empty_response, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.names import check_new_tenant_name
from frontend.parse.shapes import shaped
from shared.errors import AlreadyExists, NotFound


class TenantCreate(msgspec.Struct, frozen=True):
    """Body of POST /tenants."""

    name: str


class TenantUpdate(msgspec.Struct, frozen=True):
    """Body of PATCH /tenants/{tenant}."""

    resource_name: str


def missing_tenant(name: str) -> NotFound:
    return NotFound(f"Tenant [{name}] not found")


async def create(request: Request) -> HttpResponse:
    body = shaped(await read_json(request), TenantCreate)
    check_new_tenant_name(body.name)
    await request.context.catalog.create_tenant(body.name)
    return empty_response()


async def get(request: Request) -> HttpResponse:
    name = request.path_params["tenant"]
    tenant = await request.context.catalog.get_tenant(name)
    if tenant is None:
        raise missing_tenant(name)
    return json_response({"name": tenant.name, "resource_name": tenant.resource_name})


async def update(request: Request) -> HttpResponse:
    """Sets the resource name; setting the same one again is fine."""
    body = shaped(await read_json(request), TenantUpdate)
    name = request.path_params["tenant"]
    catalog = request.context.catalog
    if await catalog.get_tenant(name) is None:
        raise missing_tenant(name)
    if not await catalog.set_resource_name(name, body.resource_name):
        raise AlreadyExists("Failed to set resource name")
    return empty_response()


def routes() -> list[Route]:
    return [
        Route("POST", "/api/v2/tenants", create),
        Route("GET", "/api/v2/tenants/{tenant}", get),
        Route("PATCH", "/api/v2/tenants/{tenant}", update),
    ]
