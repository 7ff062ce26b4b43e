"""Collections of a database. Routes for names say `does not exist`, routes for ids end it with a full stop."""

from __future__ import annotations

from typing import Any, Final

from frontend.collections.requests import (
    Update,
    changed_vectors,
    check_shards,
    check_update,
    new_collection,
    read_creation,
    read_update,
)
from frontend.collections.row_cache import canonical_uuid, check_collection_id, check_database_name, missing
from frontend.collections.schema import shown_schema
from frontend.context import Context
from frontend.http.request import Request
from frontend.http.responses import HttpResponse, empty_response, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.params import query_page
from shared.catalog import SHARDS_KEY, Collection, Database
from shared.errors import InvalidArgument, NotFound, StaleGeneration
from shared.log.jobs import REBUILD

COLLECTIONS: Final = "/api/v2/tenants/{tenant}/databases/{database}/collections"
UPDATE_TRIES: Final = 16
"""How often an update that loses against others reads the row again before it gives up."""


def shown_collection(collection: Collection) -> dict[str, Any]:
    return {
        "id": collection.id,
        "name": collection.name,
        "configuration_json": collection.configuration,
        "schema": shown_schema(collection.schema, collection.keys) | _source(collection),
        "metadata": collection.metadata,
        "dimension": collection.dimension,
        "tenant": collection.tenant,
        "database": collection.database,
        "log_position": collection.log_position,
        "version": collection.version,
    }


def _source(collection: Collection) -> dict[str, str]:
    """What the schema says of the function whose output the collection is."""
    return {"source_attached_function_id": collection.function.id} if collection.function else {}


def _missing_name(name: str) -> NotFound:
    return NotFound(f"Collection [{name}] does not exist")


async def _database(request: Request) -> Database | None:
    name = request.path_params["database"]
    check_database_name(name)
    return await request.context.catalog.get_database(request.path_params["tenant"], name)


async def create(request: Request) -> HttpResponse:
    """The name is taken: 409, or with `get_or_create` the collection that has it, unchanged."""
    creation = read_creation(await read_json(request))
    context, database_name = request.context, request.path_params["database"]
    check_database_name(database_name)
    new = new_collection(creation, context.config.shards_default, context.config.shards_max)
    database = await _database(request)
    if database is None:
        raise _no_database(database_name)
    try:
        collection, _ = await context.catalog.create_collection(database, new, creation.body.get_or_create)
    except NotFound:
        raise _no_database(database_name) from None
    return json_response(shown_collection(collection))


def _no_database(name: str) -> InvalidArgument:
    return InvalidArgument(f"Database [{name}] does not exist")


async def list_all(request: Request) -> HttpResponse:
    """In the order of their creation; of a database that is not there, none."""
    limit, offset = query_page(request)
    database = await _database(request)
    if database is None:
        return json_response([])
    found = await request.context.catalog.list_collections(database, limit, offset)
    return json_response([shown_collection(collection) for collection in found])


async def count_all(request: Request) -> HttpResponse:
    database = await _database(request)
    return json_response(0 if database is None else await request.context.catalog.count_collections(database))


async def get(request: Request) -> HttpResponse:
    name = request.path_params["name"]
    database = await _database(request)
    collection = None if database is None else await request.context.catalog.get_collection(database, name)
    if collection is None:
        raise _missing_name(name)
    return json_response(shown_collection(collection))


async def get_by_id(request: Request) -> HttpResponse:
    check_database_name(request.path_params["database"])
    collection_id = canonical_uuid(request.path_params["collection_id"])
    if collection_id is None:
        raise InvalidArgument("Validation error: collection_id: Invalid collection ID format, expected UUID")
    database = await _database(request)
    catalog = request.context.catalog
    collection = None if database is None else await catalog.get_collection_by_id(database, collection_id)
    if collection is None:
        raise _missing_name(collection_id)
    return json_response(shown_collection(collection))


async def get_by_crn(request: Request) -> HttpResponse:
    """`<tenant_resource_name>:<database_name>:<collection_name>`"""
    crn = request.path_params["crn"]
    parts = crn.split(":")
    if len(parts) != 3 or not all(parts):
        raise InvalidArgument(
            "Validation error: crn: CRN must be in the format "
            "<tenant_resource_name>:<database_name>:<collection_name> with non-empty parts"
        )
    catalog = request.context.catalog
    tenant = await catalog.find_tenant_by_resource_name(parts[0])
    database = None if tenant is None else await catalog.get_database(tenant.name, parts[1])
    collection = None if database is None else await catalog.get_collection(database, parts[2])
    if collection is None:
        raise _missing_name(crn)
    return json_response(shown_collection(collection))


async def delete(request: Request) -> HttpResponse:
    name = request.path_params["name"]
    database = await _database(request)
    if database is None or not await request.context.catalog.delete_collection(database, name):
        raise _missing_name(name)
    return empty_response()


async def update(request: Request) -> HttpResponse:
    """Name, metadata and configuration together, or nothing of it."""
    wanted = read_update(await read_json(request))
    check_database_name(request.path_params["database"])
    collection_id = check_collection_id(request.path_params["name"])
    database = await _database(request)
    if database is None:
        raise missing(collection_id)
    await _apply(request.context, database, collection_id, wanted)
    return empty_response()


async def _apply(context: Context, database: Database, collection_id: str, wanted: Update) -> None:
    for _ in range(UPDATE_TRIES):
        collection = await context.catalog.get_collection_by_id(database, collection_id)
        if collection is None:
            raise missing(collection_id)
        check_update(wanted, context.config.shards_max)
        check_shards(wanted, collection)
        changes = _changes(collection, wanted)
        if not changes or await context.catalog.update_collection(database, collection, **changes):
            context.rows.forget(collection_id)
            if SHARDS_KEY in (wanted.metadata or {}):
                context.dirty.add(collection_id, [REBUILD])
            return
    raise StaleGeneration("The collection is being changed by others; try again")


def _changes(collection: Collection, wanted: Update) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    body = wanted.body
    if body.new_name is not None and body.new_name != collection.name:
        changes["name"] = body.new_name
    if body.new_metadata is not None:
        changes["metadata"] = wanted.metadata
    if body.new_configuration is not None:
        changes["configuration"], changes["schema"] = changed_vectors(collection, body.new_configuration)
    return changes


async def indexing_status(request: Request) -> HttpResponse:
    """An operation is one record of one write or delete. As long as the collection has fewer shards than it was
    asked to have, `rebuild` tells how far it is.
    """
    path_params = request.path_params
    rows = request.context.rows
    collection = await rows.read(path_params["tenant"], path_params["database"], path_params["collection_id"])
    total, indexed = collection.appended, collection.indexed
    return json_response(
        {
            "op_indexing_progress": indexed / total if total else 1.0,
            "num_unindexed_ops": total - indexed,
            "num_indexed_ops": indexed,
            "total_ops": total,
        }
        | _rebuild(collection)
    )


def _rebuild(collection: Collection) -> dict[str, Any]:
    rebuild = collection.rebuild
    if rebuild is None and not collection.shards_wanted:
        return {}
    new_shards, built = (rebuild.layout.count, rebuild.built) if rebuild else (collection.shards_wanted, 0)
    return {"rebuild": {"shards": collection.shards, "new_shards": new_shards, "built": built}}


def routes() -> list[Route]:
    return [
        Route("POST", COLLECTIONS, create),
        Route("GET", COLLECTIONS, list_all),
        Route("GET", "/api/v2/tenants/{tenant}/databases/{database}/collections_count", count_all),
        Route("GET", COLLECTIONS + "/by-id/{collection_id}", get_by_id),
        Route("GET", COLLECTIONS + "/{collection_id}/indexing_status", indexing_status),
        Route("GET", COLLECTIONS + "/{name}", get),
        Route("DELETE", COLLECTIONS + "/{name}", delete),
        Route("PUT", COLLECTIONS + "/{name}", update),
        Route("GET", "/api/v2/collections/{crn}", get_by_crn),
    ]
