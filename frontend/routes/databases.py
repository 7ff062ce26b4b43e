"""Databases of a tenant."""

from __future__ import annotations

from typing import Any

import msgspec

from frontend.collections.row_cache import check_database_name
from frontend.http.request import Request
from frontend.http.responses import Answer, answer, nothing_to_say
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.names import check_new_database_name
from frontend.parse.params import query_page
from frontend.parse.shapes import shaped
from frontend.routes.tenants import missing_tenant
from shared.catalog import Database
from shared.errors import NotFound


class DatabaseCreate(msgspec.Struct, frozen=True):
    """Body of POST /tenants/{tenant}/databases."""

    name: str


def shown_database(database: Database) -> dict[str, Any]:
    return {"id": database.id, "name": database.name, "tenant": database.tenant}


async def create(request: Request) -> Answer:
    body = shaped(await read_json(request), DatabaseCreate)
    tenant = request.place["tenant"]
    check_new_database_name(body.name)
    catalog = request.shell.catalog
    if await catalog.get_tenant(tenant) is None:
        raise missing_tenant(tenant)
    await catalog.create_database(tenant, body.name)
    return nothing_to_say()


async def list_all(request: Request) -> Answer:
    """In the order of their creation; of a tenant that nobody has created, none."""
    limit, offset = query_page(request)
    found = await request.shell.catalog.list_databases(request.place["tenant"], limit, offset)
    return answer([shown_database(database) for database in found])


async def get(request: Request) -> Answer:
    name = request.place["database"]
    check_database_name(name)
    database = await request.shell.catalog.get_database(request.place["tenant"], name)
    if database is None:
        raise NotFound(f"Database [{name}] not found. Are you sure it exists?")
    return answer(shown_database(database))


async def delete(request: Request) -> Answer:
    """Its collections go too."""
    name = request.place["database"]
    if not await request.shell.catalog.delete_database(request.place["tenant"], name):
        raise NotFound(f"Database [{name}] not found")
    return nothing_to_say()


def routes() -> list[Route]:
    databases = "/api/v2/tenants/{tenant}/databases"
    return [
        Route("POST", databases, create),
        Route("GET", databases, list_all),
        Route("GET", databases + "/{database}", get),
        Route("DELETE", databases + "/{database}", delete),
    ]
