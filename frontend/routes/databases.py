"""Routes of the databases of a tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from frontend.collections.row_cache import check_database_name
from frontend.http.responses import HttpResponse, empty_response, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.names import check_new_database_name
from frontend.parse.params import query_page
from frontend.parse.shapes import shaped
from frontend.routes.paths import DATABASES
from frontend.routes.tenants import missing_tenant
from frontend.routes.visible import check_new_database, listed_databases
from shared.errors import NotFound

if TYPE_CHECKING:
    from frontend.http.request import Request
    from shared.catalog import Database
    from shared.catalog.databases import Databases
    from shared.catalog.tenants import Tenants


class DatabaseCreate(msgspec.Struct, frozen=True):
    """Body of POST /tenants/{tenant}/databases."""

    name: str


def shown_database(database: Database) -> dict[str, Any]:
    """A database as clients see it."""
    return {"id": database.id, "name": database.name, "tenant": database.tenant}


class DatabaseRoutes:
    """Handlers of the database routes."""

    def __init__(self, tenants: Tenants, databases: Databases) -> None:
        self._tenants = tenants
        self._databases = databases

    def routes(self) -> list[Route]:
        """The routes of this group."""
        return [
            Route("POST", DATABASES, self.create),
            Route("GET", DATABASES, self.list_all),
            Route("GET", DATABASES + "/{database}", self.get),
            Route("DELETE", DATABASES + "/{database}", self.delete),
        ]

    async def create(self, request: Request) -> HttpResponse:
        """Creates a database in a tenant that exists; 409 when the tenant has one of that name."""
        body = shaped(await read_json(request), DatabaseCreate)
        tenant = request.path_params["tenant"]
        check_new_database_name(body.name)
        request.subject = body.name
        if request.hidden is None:
            check_new_database(request.principal, body.name)
        if await self._tenants.get(tenant) is None:
            raise missing_tenant(tenant)
        await self._databases.create(tenant, body.name)
        return empty_response()

    async def list_all(self, request: Request) -> HttpResponse:
        """Databases in the order of their creation; of a tenant that nobody has created, none."""
        limit, offset = query_page(request)
        found = await listed_databases(self._databases, request.principal, request.path_params["tenant"], limit, offset)
        return json_response([shown_database(database) for database in found])

    async def get(self, request: Request) -> HttpResponse:
        """A database, by its name."""
        name = request.path_params["database"]
        check_database_name(name)
        database = await self._databases.get(request.path_params["tenant"], name)
        if database is None:
            raise NotFound(f"Database [{name}] not found. Are you sure it exists?")
        return json_response(shown_database(database))

    async def delete(self, request: Request) -> HttpResponse:
        """Deletes a database with its collections."""
        name = request.path_params["database"]
        if not await self._databases.delete(request.path_params["tenant"], name):
            raise NotFound(f"Database [{name}] not found")
        return empty_response()
