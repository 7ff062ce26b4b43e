"""Forks of collections."""

from __future__ import annotations

import msgspec

from frontend.collections.row_cache import check_database_name, missing
from frontend.http.request import Request
from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.names import is_multi_region
from frontend.parse.shapes import shaped
from frontend.routes.collections import COLLECTIONS, shown_collection
from shared.errors import Gone, InvalidArgument


class Fork(msgspec.Struct, frozen=True):
    """Body of POST .../fork."""

    new_name: str


async def fork(request: Request) -> HttpResponse:
    """The new collection. Its name is not held to the rule for names."""
    body = shaped(await read_json(request), Fork)
    context, path_params = request.context, request.path_params
    check_database_name(path_params["database"])
    if is_multi_region(path_params["database"]):
        raise InvalidArgument("multi-region databases do not support forking")
    collection = await context.rows.resolve(
        path_params["tenant"], path_params["database"], path_params["collection_id"]
    )
    database = await context.catalog.get_database(path_params["tenant"], path_params["database"])
    if database is None:
        raise missing(collection.id)
    try:
        forked = await context.forker.fork(database, collection.id, body.new_name)
    except Gone:
        context.rows.forget(collection.id)
        raise missing(collection.id) from None
    context.dirty.add(forked.id, forked.layout.numbers)
    return json_response(shown_collection(forked))


async def fork_count(request: Request) -> HttpResponse:
    """How many forks the collection's family ever made, those included that were deleted."""
    path_params, context = request.path_params, request.context
    collection = await context.rows.resolve(
        path_params["tenant"], path_params["database"], path_params["collection_id"]
    )
    return json_response({"count": await context.forker.count(collection)})


def routes() -> list[Route]:
    return [
        Route("POST", COLLECTIONS + "/{collection_id}/fork", fork),
        Route("GET", COLLECTIONS + "/{collection_id}/fork_count", fork_count),
    ]
