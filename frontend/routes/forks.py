"""Routes of forks: collections that begin with what another collection held at one moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from frontend.collections.row_cache import check_database_name, missing
from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.parse.as_of import GivenAsOf, read_as_of
from frontend.parse.body import read_json
from frontend.parse.names import is_multi_region
from frontend.parse.shapes import shaped
from frontend.routes.collections import shown_collection
from frontend.routes.paths import COLLECTION
from frontend.routes.resolve import missing_once_deleted, resolve
from shared.errors import InvalidArgument
from shared.tenancy.quotas import Quota

if TYPE_CHECKING:
    from frontend.admission.stored_quotas import StoredQuotas
    from frontend.collections.forking import Forker
    from frontend.collections.row_cache import RowCache
    from frontend.http.request import Request
    from frontend.read.past import Past
    from frontend.write.dirty import DirtyShards
    from shared.catalog import Collection, Database
    from shared.catalog.databases import Databases


class Fork(msgspec.Struct, frozen=True):
    """Body of POST .../fork."""

    new_name: str
    as_of: GivenAsOf = None


class ForkRoutes:
    """Handlers of the fork routes."""

    def __init__(
        self,
        rows: RowCache,
        databases: Databases,
        forker: Forker,
        past: Past,
        dirty: DirtyShards,
        stored: StoredQuotas,
    ) -> None:
        self._stored = stored
        self._rows = rows
        self._databases = databases
        self._forker = forker
        self._past = past
        self._dirty = dirty

    def routes(self) -> list[Route]:
        """The routes, of which each answers 404 when its collection turns out to be deleted."""
        routes = [
            Route("POST", COLLECTION + "/fork", self.fork),
            Route("GET", COLLECTION + "/fork_count", self.fork_count),
        ]
        return missing_once_deleted(self._rows, routes)

    async def fork(self, request: Request) -> HttpResponse:
        """Makes a fork, which is the answer. Its name is not held to the rule for names."""
        body = shaped(await read_json(request), Fork)
        path_params = request.path_params
        check_database_name(path_params["database"])
        if is_multi_region(path_params["database"]):
            raise InvalidArgument("multi-region databases do not support forking")
        collection = await resolve(self._rows, request)
        database = await self._databases.get(path_params["tenant"], path_params["database"])
        if database is None:
            raise missing(collection.id)
        await self._stored.check(request, collection, 1)  # it counts what it shares with its origin, too
        fork = await self._fork(request, database, collection, body)
        request.subject = fork.id
        self._dirty.add(fork.id, fork.layout.numbers)
        return json_response(shown_collection(fork))

    async def _fork(self, request: Request, database: Database, collection: Collection, body: Fork) -> Collection:
        as_of, most = read_as_of(body.as_of), request.quotas.most(Quota.FORKS)
        if as_of is None:
            return await self._forker.fork(database, collection.id, body.new_name, most=most)

        async def fork(position: int) -> Collection:
            return await self._forker.fork(database, collection.id, body.new_name, position, most)

        return await self._past.read(collection, as_of, fork)

    async def fork_count(self, request: Request) -> HttpResponse:
        """The number of forks that the collection's family ever made, those included that were deleted."""
        collection = await resolve(self._rows, request)
        return json_response({"count": await self._forker.count(collection)})
