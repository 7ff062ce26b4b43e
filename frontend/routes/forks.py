"""Forks of collections."""

from __future__ import annotations

import msgspec

from frontend.collections.row_cache import check_database_name, missing
from frontend.http.request import Request
from frontend.http.responses import Answer, answer
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.names import is_multi_region
from frontend.parse.shapes import shaped
from frontend.routes.collections import COLLECTIONS, shown_collection
from shared.errors import Gone, InvalidArgument


class Fork(msgspec.Struct, frozen=True):
    """Body of POST .../fork."""

    new_name: str


async def fork(request: Request) -> Answer:
    """The new collection. Its name is not held to the rule for names."""
    body = shaped(await read_json(request), Fork)
    shell, place = request.shell, request.place
    check_database_name(place["database"])
    if is_multi_region(place["database"]):
        raise InvalidArgument("multi-region databases do not support forking")
    collection = await shell.rows.resolve(place["tenant"], place["database"], place["collection_id"])
    database = await shell.catalog.get_database(place["tenant"], place["database"])
    if database is None:
        raise missing(collection.id)
    try:
        forked = await shell.forker.fork(database, collection.id, body.new_name)
    except Gone:
        shell.rows.forget(collection.id)
        raise missing(collection.id) from None
    shell.dirty.add(forked.id, forked.layout.numbers)
    return answer(shown_collection(forked))


async def fork_count(request: Request) -> Answer:
    """How many forks the collection's family ever made, those included that were deleted."""
    place, shell = request.place, request.shell
    collection = await shell.rows.resolve(place["tenant"], place["database"], place["collection_id"])
    return answer({"count": await shell.forker.count(collection)})


def routes() -> list[Route]:
    return [
        Route("POST", COLLECTIONS + "/{collection_id}/fork", fork),
        Route("GET", COLLECTIONS + "/{collection_id}/fork_count", fork_count),
    ]
