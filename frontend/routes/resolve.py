"""Finds the collection that the path of a request names, and answers 404 for a collection found to be deleted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from frontend.collections.row_cache import RowCache, check_collection_id
from frontend.http.request import Request
from frontend.http.responses import HttpResponse
from frontend.http.router import Handler, Route
from shared.catalog import Collection
from shared.errors import Gone, Unavailable

Checked = TypeVar("Checked")


async def resolve(rows: RowCache, request: Request) -> Collection:
    """The collection in the path, as the cache has it. Raises InvalidArgument for a database name or a collection id
    that is not well formed, NotFound.
    """
    path_params = request.path_params
    return await rows.resolve(path_params["tenant"], path_params["database"], path_params["collection_id"])


async def resolve_with_dimension(
    rows: RowCache, request: Request, check: Callable[[], Awaitable[Checked]]
) -> tuple[Collection, Checked]:
    """The collection in the path, and the result of `check`, which looks at the body alone. When the cache knows no
    dimension of the collection, the row is the catalog's current one, because the cached one may be older than the
    first write.

    Raises what `resolve` and `check` do, in this order: a collection that is deleted is missing, whatever the body
    holds. Only while the catalog is away does `check` come first: no later try makes a wrong body right. Unavailable is
    raised when it has passed.
    """
    collection = await resolve(rows, request)
    if collection.dimension is None:
        try:
            collection = await rows.refresh(collection)
        except Unavailable:
            await check()
            raise
    return collection, await check()


def missing_once_deleted(rows: RowCache, routes: Sequence[Route]) -> list[Route]:
    """These routes with handlers that answer a collection which turns out to be deleted (Gone) with the 404 of a
    collection that was never there. The catalog decides that: a state that Redis lost is missing, too.
    """
    return [Route(route.method, route.path, _missing_once_deleted(rows, route.handler)) for route in routes]


def _missing_once_deleted(rows: RowCache, handler: Handler) -> Handler:
    async def handle(request: Request) -> HttpResponse:
        try:
            return await handler(request)
        except Gone:
            collection_id = check_collection_id(request.path_params["collection_id"])
            rows.forget(collection_id)
            await resolve(rows, request)  # NotFound of a deleted one; Unavailable where Redis lost its state
            raise Unavailable(f"Collection [{collection_id}] is being restored") from None

    return handle
