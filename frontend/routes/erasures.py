"""Routes of erasures, below `/polychrome/v1`: ask for one, list, show.

Records are deleted before the request is written down, and named in it by their hashes. Collections are written down
before they are deleted: who finds them deleted could not tell which they were.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.shapes import shaped
from frontend.routes.paths import CONTROL
from frontend.routes.tenants import missing_tenant
from frontend.routes.visible import named_collection
from frontend.uuids import canonical_uuid
from shared.errors import InvalidArgument, NotFound, PermissionDenied
from shared.tenancy.api_keys import TenantName
from shared.tenancy.erasure_store import missing_erasure
from shared.tenancy.erasures import COLLECTIONS_MAX, RECORDS_MAX, Erasure, Receipt, hashed

if TYPE_CHECKING:
    from frontend.collections.row_cache import RowCache
    from frontend.http.request import Request
    from frontend.write.writes import Writer
    from shared.catalog import Catalog, Collection, Database
    from shared.process.clock import Clock
    from shared.tenancy.erasure_store import ErasureStore
    from shared.tenancy.principal import Scope

ERASURES: Final = CONTROL + "/erasures"
WITHIN_S_MAX: Final = 10 * 366 * 24 * 3600.0


class ErasureBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /erasures. `collection` is a name or an id. Without `ids` the collection is erased as a whole,
    without `collection` all of the database, without `database` all databases of the tenant. A member that is not
    known is refused: a restriction that was mistyped would be none.
    """

    tenant: TenantName
    database: str | None = None
    collection: str | None = None
    ids: Annotated[list[str], msgspec.Meta(min_length=1, max_length=RECORDS_MAX)] | None = None
    within_s: Annotated[float, msgspec.Meta(gt=0, le=WITHIN_S_MAX)] | None = None


class ErasureRoutes:
    """Handlers of the routes."""

    def __init__(self, catalog: Catalog, rows: RowCache, writer: Writer, erasures: ErasureStore, clock: Clock) -> None:
        self._catalog = catalog
        self._rows = rows
        self._writer = writer
        self._erasures = erasures
        self._clock = clock

    def routes(self) -> list[Route]:
        """The routes of this group."""
        return [
            Route("POST", ERASURES, self.create),
            Route("GET", ERASURES, self.list_all),
            Route("GET", ERASURES + "/{erasure_id}", self.get),
        ]

    async def create(self, request: Request) -> HttpResponse:
        """Deletes what is named, and has all that is left of it erased: 202, and a receipt once it is done."""
        body = shaped(await read_json(request), ErasureBody)
        if not request.principal.scope.has_tenant(body.tenant) or await self._catalog.tenants.get(body.tenant) is None:
            raise missing_tenant(body.tenant)
        if (body.collection is None and body.ids is not None) or (body.database is None and body.collection):
            raise InvalidArgument("ids are those of a collection, and a collection is one of a database: name them")
        databases = await self._databases(request, body)
        if body.collection is not None:
            collection = await self._collection(request, databases[0], body.collection)
            erasure = self._erasure(body, [collection.id])
            live = await self._erase_within(databases[0], collection, body, erasure)
        else:
            ids = [each for database in databases for each in await self._catalog.collections.ids(database)]
            if len(ids) > COLLECTIONS_MAX:
                raise InvalidArgument(f"{len(ids)} collections: at most {COLLECTIONS_MAX} are erased by one request")
            erasure = self._erasure(body, ids)
            live = await self._erasures.create(erasure)
            for database in databases:
                await self._catalog.databases.delete(body.tenant, database.name)
        self._rows.clear()
        request.subject = erasure.id
        return json_response(shown_erasure(erasure) | {"live": live}, 202)

    async def list_all(self, request: Request) -> HttpResponse:
        """The erasures of what is within the sender's scope."""
        scope = request.principal.scope
        return json_response([shown_erasure(each) for each in await self._erasures.all() if _is_visible(each, scope)])

    async def get(self, request: Request) -> HttpResponse:
        """An erasure: how far it is, or its receipt."""
        erasure_id = request.path_params["erasure_id"]
        found = await self._erasures.get(erasure_id)
        if not _is_visible(found, request.principal.scope):
            raise missing_erasure(erasure_id)
        return json_response(shown_erasure(found))

    async def _erase_within(
        self, database: Database, collection: Collection, body: ErasureBody, erasure: Erasure
    ) -> bool:
        if body.ids is not None:
            await self._writer.delete(collection, body.ids)
            return await self._erasures.create(erasure)
        live = await self._erasures.create(erasure)
        await self._catalog.collections.delete(database, collection.name, only=collection.id)
        return live

    async def _databases(self, request: Request, body: ErasureBody) -> list[Database]:
        scope = request.principal.scope
        if body.database is None:
            if not scope.whole_tenants:
                raise PermissionDenied("Permission denied: the sender has only a part of the tenant")
            return list(await self._catalog.databases.of_tenant(body.tenant))
        found = None
        if scope.has_database(body.tenant, body.database):
            found = await self._catalog.databases.get(body.tenant, body.database)
        if found is None:
            raise NotFound(f"Database [{body.database}] not found. Are you sure it exists?")
        if body.collection is None and not scope.whole_databases:
            raise PermissionDenied("Permission denied: the sender has only a part of the database")
        return [found]

    async def _collection(self, request: Request, database: Database, named: str) -> Collection:
        collection_id = canonical_uuid(named)
        if collection_id is None:
            found = await named_collection(self._catalog.collections, request.principal, database, named)
        else:
            visible = request.principal.scope.has_collection(database.tenant, database.name, collection_id)
            found = await self._catalog.collections.get_by_id(database, collection_id) if visible else None
        if found is None:
            raise NotFound(f"Collection [{named}] does not exist")
        return found

    def _erasure(self, body: ErasureBody, collections: list[str]) -> Erasure:
        return Erasure(
            id=uuid.uuid4().hex,
            tenant=body.tenant,
            database=body.database,
            collection=collections[0] if body.collection is not None else None,
            collections=collections,
            records=hashed(body.ids or ()),
            requested_s=self._clock.now(),
            within_s=body.within_s,
        )


def _is_visible(erasure: Erasure | Receipt, scope: Scope) -> bool:
    if erasure.database is None:
        return scope.has_tenant(erasure.tenant) and scope.whole_tenants
    if erasure.collection is None:
        return scope.has_database(erasure.tenant, erasure.database) and scope.whole_databases
    return scope.has_collection(erasure.tenant, erasure.database, erasure.collection)


def shown_erasure(erasure: Erasure | Receipt) -> dict[str, Any]:
    """An erasure as clients see it: `state` is `requested`, `erasing` or `done`; with a receipt all that it says."""
    if isinstance(erasure, Receipt):
        shown: dict[str, Any] = msgspec.to_builtins(erasure)
        return shown | {"state": "done", "late": erasure.late}
    place = {"id": erasure.id, "tenant": erasure.tenant, "database": erasure.database, "collection": erasure.collection}
    progress = {"state": erasure.state, "requested_s": erasure.requested_s, "records": len(erasure.records)}
    return place | progress | {"collections": len(erasure.collections)}
