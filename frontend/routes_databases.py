"""Databases of a tenant."""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp import web

from frontend.answers import answer, nothing_to_say
from frontend.body import read_json, shaped
from frontend.names import check_new_database_name
from frontend.params import query_page
from frontend.routes_tenants import missing_tenant
from frontend.rows import check_database_name
from frontend.shell import shell_of
from shared.catalog import Database
from shared.errors import NotFound


class DatabaseCreate(msgspec.Struct, frozen=True):
    """Body of POST /tenants/{tenant}/databases."""

    name: str


def shown_database(database: Database) -> dict[str, Any]:
    return {"id": database.id, "name": database.name, "tenant": database.tenant}


async def create(request: web.Request) -> web.Response:
    body = shaped(await read_json(request), DatabaseCreate)
    tenant = request.match_info["tenant"]
    check_new_database_name(body.name)
    catalog = shell_of(request).catalog
    if await catalog.get_tenant(tenant) is None:
        raise missing_tenant(tenant)
    await catalog.create_database(tenant, body.name)
    return nothing_to_say()


async def list_all(request: web.Request) -> web.Response:
    """In the order of their creation; of a tenant that nobody has created, none."""
    limit, offset = query_page(request)
    found = await shell_of(request).catalog.list_databases(request.match_info["tenant"], limit, offset)
    return answer([shown_database(database) for database in found])


async def get(request: web.Request) -> web.Response:
    name = request.match_info["database"]
    check_database_name(name)
    database = await shell_of(request).catalog.get_database(request.match_info["tenant"], name)
    if database is None:
        raise NotFound(f"Database [{name}] not found. Are you sure it exists?")
    return answer(shown_database(database))


async def delete(request: web.Request) -> web.Response:
    """Its collections go too."""
    name = request.match_info["database"]
    if not await shell_of(request).catalog.delete_database(request.match_info["tenant"], name):
        raise NotFound(f"Database [{name}] not found")
    return nothing_to_say()


def routes() -> list[web.RouteDef]:
    databases = "/api/v2/tenants/{tenant}/databases"
    return [
        web.post(databases, create),
        web.get(databases, list_all),
        web.get(databases + "/{database}", get),
        web.delete(databases + "/{database}", delete),
    ]
