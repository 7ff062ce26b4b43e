"""Tenants: created once, given a resource name once, never deleted."""

from __future__ import annotations

import msgspec
from aiohttp import web

from frontend.answers import answer, nothing_to_say
from frontend.body import read_json, shaped
from frontend.names import check_new_tenant_name
from frontend.shell import shell_of
from shared.errors import AlreadyExists, NotFound


class TenantCreate(msgspec.Struct, frozen=True):
    """Body of POST /tenants."""

    name: str


class TenantUpdate(msgspec.Struct, frozen=True):
    """Body of PATCH /tenants/{tenant}."""

    resource_name: str


def missing_tenant(name: str) -> NotFound:
    return NotFound(f"Tenant [{name}] not found")


async def create(request: web.Request) -> web.Response:
    body = shaped(await read_json(request), TenantCreate)
    check_new_tenant_name(body.name)
    await shell_of(request).catalog.create_tenant(body.name)
    return nothing_to_say()


async def get(request: web.Request) -> web.Response:
    name = request.match_info["tenant"]
    tenant = await shell_of(request).catalog.get_tenant(name)
    if tenant is None:
        raise missing_tenant(name)
    return answer({"name": tenant.name, "resource_name": tenant.resource_name})


async def update(request: web.Request) -> web.Response:
    """Sets the resource name; setting the same one again is fine."""
    body = shaped(await read_json(request), TenantUpdate)
    name = request.match_info["tenant"]
    catalog = shell_of(request).catalog
    if await catalog.get_tenant(name) is None:
        raise missing_tenant(name)
    if not await catalog.set_resource_name(name, body.resource_name):
        raise AlreadyExists("Failed to set resource name")
    return nothing_to_say()


def routes() -> list[web.RouteDef]:
    return [
        web.post("/api/v2/tenants", create),
        web.get("/api/v2/tenants/{tenant}", get),
        web.patch("/api/v2/tenants/{tenant}", update),
    ]
