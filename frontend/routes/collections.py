"""Routes of the collections of a database. Routes for names say `does not exist`; routes for ids end that with a full
stop, as Chroma does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from frontend.collections.requests import (
    Update,
    changed_vectors,
    check_shards,
    check_update,
    new_collection,
    read_creation,
    read_update,
    shards_wanted,
)
from frontend.collections.row_cache import check_collection_id, check_database_name, missing
from frontend.collections.schema import shown_schema
from frontend.http.responses import HttpResponse, empty_response, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.params import query_page
from frontend.routes.paths import COLLECTION, COLLECTIONS, DATABASES
from frontend.routes.visible import check_new_name, counted_collections, listed_collections, named_collection
from frontend.uuids import canonical_uuid
from shared.catalog import SHARDS_KEY, Collection, Database
from shared.errors import AlreadyExists, InvalidArgument, NotFound, StaleGeneration
from shared.log.jobs import REBUILD
from shared.tenancy.actions import Action
from shared.tenancy.quotas import Quota

if TYPE_CHECKING:
    from frontend.collections.row_cache import RowCache
    from frontend.http.request import Request
    from frontend.write.dirty import DirtyShards
    from shared.catalog import Catalog
    from shared.tenancy.principal import Principal

UPDATE_TRIES: Final = 16
"""Times that an update that loses against others reads the row again before it gives up."""


def shown_collection(collection: Collection) -> dict[str, Any]:
    """A collection as clients see it."""
    return {
        "id": collection.id,
        "name": collection.name,
        "configuration_json": collection.configuration,
        "schema": shown_schema(collection.schema, collection.keys) | _shown_source(collection),
        "metadata": collection.metadata,
        "dimension": collection.dimension,
        "tenant": collection.tenant,
        "database": collection.database,
        "log_position": collection.log_position,
        "version": collection.version,
    }


def _shown_source(collection: Collection) -> dict[str, str]:
    """The schema's description of the function whose output the collection is."""
    return {"source_attached_function_id": collection.function.id} if collection.function else {}


def _shown_rebuild(collection: Collection) -> dict[str, Any]:
    """The progress of the rebuild that gives the collection more shards; empty when there is none."""
    rebuild = collection.rebuild
    if rebuild is None and not collection.shards_wanted:
        return {}
    new_shards, built = (rebuild.layout.count, rebuild.built) if rebuild else (collection.shards_wanted, 0)
    return {"rebuild": {"shards": collection.shards, "new_shards": new_shards, "built": built}}


def _missing_name(name: str) -> NotFound:
    return NotFound(f"Collection [{name}] does not exist")


def _missing_database(name: str) -> InvalidArgument:
    return InvalidArgument(f"Database [{name}] does not exist")


@dataclass(frozen=True, slots=True)
class ShardLimits:
    """The number of shards of a collection whose metadata does not say how many, and the most it may ask for."""

    default: int
    most: int


class CollectionRoutes:
    """Handlers of the collection routes."""

    def __init__(self, catalog: Catalog, rows: RowCache, dirty: DirtyShards, shard_limits: ShardLimits) -> None:
        self._catalog = catalog
        self._rows = rows
        self._dirty = dirty
        self._shard_limits = shard_limits

    def routes(self) -> list[Route]:
        """The routes of this group."""
        return [
            Route("POST", COLLECTIONS, self.create),
            Route("GET", COLLECTIONS, self.list_all),
            Route("GET", DATABASES + "/{database}/collections_count", self.count_all),
            Route("GET", COLLECTIONS + "/by-id/{collection_id}", self.get_by_id),
            Route("GET", COLLECTION + "/indexing_status", self.indexing_status),
            Route("GET", COLLECTIONS + "/{name}", self.get),
            Route("DELETE", COLLECTIONS + "/{name}", self.delete),
            Route("PUT", COLLECTIONS + "/{name}", self.update),
            Route("GET", "/api/v2/collections/{crn}", self.get_by_crn),
        ]

    async def create(self, request: Request) -> HttpResponse:
        """Creates a collection. A name that is taken is 409, or with `get_or_create` the collection that has it,
        unchanged.
        """
        creation = read_creation(await read_json(request), request.limits)
        get_or_create = creation.body.get_or_create
        request.require(Action.GET_OR_CREATE_COLLECTION if get_or_create else Action.CREATE_COLLECTION)
        database_name = request.path_params["database"]
        check_database_name(database_name)
        request.subject = creation.body.name
        default = max(1, request.quotas.lower(Quota.SHARDS, self._shard_limits.default))  # of 0, refused below
        new = new_collection(creation, default, self._shard_limits.most)
        request.check_quota(Quota.SHARDS, new.fixed["shards"])
        database = await self._database(request)
        if database is None:
            raise _missing_database(database_name)
        if not request.principal.scope.whole_databases:
            return await self._get_instead(request.principal, database, creation.body.name, get_or_create)
        try:
            collection, _ = await self._catalog.collections.create(database, new, get_or_create)
        except NotFound:
            raise _missing_database(database_name) from None
        return json_response(shown_collection(collection))

    async def _get_instead(self, principal: Principal, database: Database, name: str, get: bool) -> HttpResponse:
        """The answer to a creation by a principal that is bound to some collections, and can make no other one."""
        collection = await named_collection(self._catalog.collections, principal, database, name)
        if collection is None:
            check_new_name(principal)
        elif get:
            return json_response(shown_collection(collection))
        raise AlreadyExists(f"Collection [{name}] already exists")

    async def list_all(self, request: Request) -> HttpResponse:
        """Collections in the order of their creation; of a database that is not there, none."""
        limit, offset = query_page(request)
        database = await self._database(request)
        if database is None:
            return json_response([])
        found = await listed_collections(self._catalog.collections, request.principal, database, limit, offset)
        return json_response([shown_collection(collection) for collection in found])

    async def count_all(self, request: Request) -> HttpResponse:
        """The number of collections; of a database that is not there, 0."""
        database = await self._database(request)
        if database is None:
            return json_response(0)
        return json_response(await counted_collections(self._catalog.collections, request.principal, database))

    async def get(self, request: Request) -> HttpResponse:
        """A collection, by its name."""
        name = request.path_params["name"]
        database = await self._database(request)
        collection = None
        if database is not None:
            collection = await named_collection(self._catalog.collections, request.principal, database, name)
        if collection is None:
            raise _missing_name(name)
        return json_response(shown_collection(collection))

    async def get_by_id(self, request: Request) -> HttpResponse:
        """A collection, by its id."""
        check_database_name(request.path_params["database"])
        collection_id = canonical_uuid(request.path_params["collection_id"])
        if collection_id is None:
            raise InvalidArgument("Validation error: collection_id: Invalid collection ID format, expected UUID")
        database = await self._database(request)
        collection = None
        if database is not None:
            collection = await self._catalog.collections.get_by_id(database, collection_id)
        if collection is None:
            raise _missing_name(collection_id)
        return json_response(shown_collection(collection))

    async def get_by_crn(self, request: Request) -> HttpResponse:
        """A collection, by `<tenant_resource_name>:<database_name>:<collection_name>`."""
        crn = request.path_params["crn"]
        names = crn.split(":")
        if len(names) != 3 or not all(names):
            raise InvalidArgument(
                "Validation error: crn: CRN must be in the format "
                "<tenant_resource_name>:<database_name>:<collection_name> with non-empty parts"
            )
        database = await self._database_of_crn(request.principal, *names[:2])
        collection = None
        if database is not None:
            collection = await named_collection(self._catalog.collections, request.principal, database, names[2])
        if collection is None:
            raise _missing_name(crn)
        return json_response(shown_collection(collection))

    async def _database_of_crn(self, principal: Principal, resource: str, name: str) -> Database | None:
        """The database that a resource name and its own name mean, None when the principal sees none. A principal of
        one tenant has the name compared with that tenant's, so that no other tenant's is looked up.
        """
        scope = principal.scope
        if scope.tenant is None:
            tenant = await self._catalog.tenants.find_by_resource_name(resource)
        else:
            tenant = await self._catalog.tenants.get(scope.tenant)
        if tenant is None or tenant.resource_name != resource or not scope.has_database(tenant.name, name):
            return None
        return await self._catalog.databases.get(tenant.name, name)

    async def delete(self, request: Request) -> HttpResponse:
        """Deletes a collection, by its name."""
        name = request.path_params["name"]
        database = await self._database(request)
        if database is None or not await self._delete(request.principal, database, name):
            raise _missing_name(name)
        return empty_response()

    async def _delete(self, principal: Principal, database: Database, name: str) -> bool:
        if principal.scope.whole_databases:
            return await self._catalog.collections.delete(database, name)
        seen = await named_collection(self._catalog.collections, principal, database, name)
        return seen is not None and await self._catalog.collections.delete(database, name, only=seen.id)

    async def update(self, request: Request) -> HttpResponse:
        """Changes name, metadata and configuration together, or nothing of it."""
        update = read_update(await read_json(request), request.limits)
        if update.body.new_name is not None and request.hidden is None:
            check_new_name(request.principal)
        check_database_name(request.path_params["database"])
        collection_id = check_collection_id(request.path_params["name"])
        database = await self._database(request)
        if database is None:
            raise missing(collection_id)
        request.check_quota(Quota.SHARDS, shards_wanted(update))
        await self._update(database, collection_id, update)
        return empty_response()

    async def _update(self, database: Database, collection_id: str, update: Update) -> None:
        for _ in range(UPDATE_TRIES):
            collection = await self._catalog.collections.get_by_id(database, collection_id)
            if collection is None:
                raise missing(collection_id)
            check_update(update, self._shard_limits.most)
            check_shards(update, collection)
            changes = _changes(collection, update)
            if not changes or await self._catalog.collections.update(database, collection, **changes):
                self._rows.forget(collection_id)
                if SHARDS_KEY in (update.metadata or {}):
                    self._dirty.add(collection_id, [REBUILD])
                return
        raise StaleGeneration("The collection is being changed by others; try again")

    async def indexing_status(self, request: Request) -> HttpResponse:
        """Numbers of operations, and of those that are compacted; an operation is one record of one write or delete.
        As long as the collection has fewer shards than it was asked to have, `rebuild` tells how far it is.
        """
        path_params = request.path_params
        collection = await self._rows.read(path_params["tenant"], path_params["database"], path_params["collection_id"])
        total, indexed = collection.appended, collection.indexed
        return json_response(
            {
                "op_indexing_progress": indexed / total if total else 1.0,
                "num_unindexed_ops": total - indexed,
                "num_indexed_ops": indexed,
                "total_ops": total,
            }
            | _shown_rebuild(collection)
        )

    async def _database(self, request: Request) -> Database | None:
        """The database in the path, None when there is none. Raises InvalidArgument for a name that is too short."""
        name = request.path_params["database"]
        check_database_name(name)
        return await self._catalog.databases.get(request.path_params["tenant"], name)


def _changes(collection: Collection, update: Update) -> dict[str, Any]:
    """The columns of the collection's row that an update changes."""
    changes: dict[str, Any] = {}
    body = update.body
    if body.new_name is not None and body.new_name != collection.name:
        changes["name"] = body.new_name
    if body.new_metadata is not None:
        changes["metadata"] = update.metadata
    if body.new_configuration is not None:
        changes["configuration"], changes["schema"] = changed_vectors(collection, body.new_configuration)
    return changes
