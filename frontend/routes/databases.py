"""Databases of a tenant."""

from __future__ import annotations

from typing import Any

import msgspec

from frontend.collections.row_cache import check_database_name
from frontend.http.request import Request
from frontend.http.responses import HttpResponse, empty_response, json_response
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


async def create(request: Request) -> HttpResponse:
    body = shaped(await read_json(request), DatabaseCreate)
    tenant = request.path_params["tenant"]
    check_new_database_name(body.name)
    catalog = request.context.catalog
    if await catalog.get_tenant(tenant) is None:
        raise missing_tenant(tenant)
    await catalog.create_database(tenant, body.name)
    return empty_response()


async def list_all(request: Request) -> HttpResponse:
    """In the order of their creation; of a tenant that nobody has created, none."""
    limit, offset = query_page(request)
    found = await request.context.catalog.list_databases(request.path_params["tenant"], limit, offset)
    return json_response([shown_database(database) for database in found])


async def get(request: Request) -> HttpResponse:
    name = request.path_params["database"]
    check_database_name(name)
    database = await request.context.catalog.get_database(request.path_params["tenant"], name)
    if database is None:
        raise NotFound(f"Database [{name}] not found. Are you sure it exists?")
    return json_response(shown_database(database))


async def delete(request: Request) -> HttpResponse:
    """Its collections go too."""
    name = request.path_params["database"]
    if not await request.context.catalog.delete_database(request.path_params["tenant"], name):
        raise NotFound(f"Database [{name}] not found")
    return empty_response()


def routes() -> list[Route]:
    databases = "/api/v2/tenants/{tenant}/databases"
    return [
        Route("POST", databases, create),
        Route("GET", databases, list_all),
        Route("GET", databases + "/{database}", get),
        Route("DELETE", databases + "/{database}", delete),
    ]
