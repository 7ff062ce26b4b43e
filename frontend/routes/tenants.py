"""Tenants: created once, given a resource name once, never deleted."""

from __future__ import annotations

import msgspec

from frontend.http.request import Request
from frontend.http.responses import Answer, answer, nothing_to_say
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


async def create(request: Request) -> Answer:
    body = shaped(await read_json(request), TenantCreate)
    check_new_tenant_name(body.name)
    await request.shell.catalog.create_tenant(body.name)
    return nothing_to_say()


async def get(request: Request) -> Answer:
    name = request.place["tenant"]
    tenant = await request.shell.catalog.get_tenant(name)
    if tenant is None:
        raise missing_tenant(name)
    return answer({"name": tenant.name, "resource_name": tenant.resource_name})


async def update(request: Request) -> Answer:
    """Sets the resource name; setting the same one again is fine."""
    body = shaped(await read_json(request), TenantUpdate)
    name = request.place["tenant"]
    catalog = request.shell.catalog
    if await catalog.get_tenant(name) is None:
        raise missing_tenant(name)
    if not await catalog.set_resource_name(name, body.resource_name):
        raise AlreadyExists("Failed to set resource name")
    return nothing_to_say()


def routes() -> list[Route]:
    return [
        Route("POST", "/api/v2/tenants", create),
        Route("GET", "/api/v2/tenants/{tenant}", get),
        Route("PATCH", "/api/v2/tenants/{tenant}", update),
    ]
