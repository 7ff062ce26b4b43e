"""Routes of records: add, update, upsert, delete, count, get, query, search.

Each handler keeps the order of checks of docs/wire.md, section 2: the body's shape, then database name, collection id
and collection, then the values.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final, TypeVar

import msgspec

from frontend.collections.configuration import effective_ef_search
from frontend.collections.row_cache import check_collection_id, missing
from frontend.collections.schema import check_filterable
from frontend.concurrency import off_loop
from frontend.context import Context
from frontend.embed.texts import (
    QueryTexts,
    query_vectors,
    read_query_texts,
    with_embeddings,
    with_query_vectors,
)
from frontend.http.request import Request
from frontend.http.responses import HttpResponse, StreamedResponse, empty_response, encoded_response, json_response
from frontend.http.router import Handler, Route
from frontend.parse.body import read_json
from frontend.parse.embeddings import Embeddings, RawEmbeddings, read_embeddings
from frontend.parse.params import query_read_level
from frontend.parse.search import SearchBody, check_search, read_search
from frontend.parse.shapes import require_object, shaped, wrong_shape
from frontend.parse.where import parse_filters
from frontend.parse.writes import check_width, read_write, refuse_fields
from frontend.read import reads
from frontend.read.search_requests import check_indexes, empty_body, searches_of
from frontend.read.searching import search_body
from frontend.write.writes import STALE_ROWS_MAX, append_delete, append_write
from shared.catalog import Collection
from shared.errors import Gone, StaleGeneration
from shared.limits import U32_MAX
from shared.records.include import GET_DEFAULT, QUERY_DEFAULT, Wanted
from shared.records.model import Include, Op, ReadLevel
from shared.records.selection import Selection
from shared.rpc.parts import Parts

U32 = Annotated[int, msgspec.Meta(ge=0, le=U32_MAX)]

Body = TypeVar("Body")
Result = TypeVar("Result")

N_RESULTS_DEFAULT: Final = 10


class _Selectors(msgspec.Struct):
    ids: list[str] | None = None
    where: Any = None
    where_document: Any = None

    async def selection(self, size: int | None) -> Selection:
        """`size`: bytes of the body. Raises InvalidArgument."""
        if self.where is None and self.where_document is None:
            return Selection(self.ids)
        if "regex" in f"{self.where}{self.where_document}":
            size = None  # a pattern of a few bytes may take long to compile
        return Selection(self.ids, await off_loop(size, parse_filters, self.where, self.where_document))


class Delete(_Selectors):
    """Body of POST .../delete."""

    limit: U32 | None = None


class Get(_Selectors):
    """Body of POST .../get."""

    limit: U32 | None = None
    offset: U32 | None = None
    include: list[Include] = msgspec.field(default_factory=lambda: list(GET_DEFAULT))
    explain: bool = False


class _Query(_Selectors):
    n_results: U32 | None = None
    include: list[Include] = msgspec.field(default_factory=lambda: list(QUERY_DEFAULT))
    read_level: ReadLevel = ReadLevel.INDEX_AND_WAL
    explain: bool = False


def routes() -> list[Route]:
    base = "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection_id}"
    posts = {
        "query": query,
        "get": get,
        "add": add,
        "update": update,
        "upsert": upsert,
        "delete": delete,
        "search": search,
    }
    return [
        *(Route("POST", f"{base}/{name}", while_it_exists(handler)) for name, handler in posts.items()),
        Route("GET", f"{base}/count", while_it_exists(count)),
    ]


def while_it_exists(handler: Handler) -> Handler:
    """When the collection in the path turns out to be deleted, that is the same 404 as one never found."""

    async def handle(request: Request) -> HttpResponse:
        try:
            return await handler(request)
        except Gone:
            collection_id = check_collection_id(request.path_params["collection_id"])
            request.context.rows.forget(collection_id)
            raise missing(collection_id) from None

    return handle


async def add(request: Request) -> HttpResponse:
    await _write(request, Op.ADD)
    return empty_response(201)


async def update(request: Request) -> HttpResponse:
    await _write(request, Op.UPDATE)
    return empty_response()


async def upsert(request: Request) -> HttpResponse:
    await _write(request, Op.UPSERT)
    return empty_response()


async def delete(request: Request) -> HttpResponse:
    body = await read_body(request, lambda tree: shaped(tree, Delete))
    collection = await collection_of(request)
    selection = await body.selection(request.body_bytes)
    _check_delete(body, selection)
    check_filterable(collection, selection.where)
    return json_response({"deleted": await _delete(request.context, collection, selection, body.limit)})


async def count(request: Request) -> HttpResponse:
    read_level = query_read_level(request)
    context, collection = request.context, await collection_of(request)
    return json_response(
        await read_collection(
            context, collection, lambda collection: reads.count(context.workers, collection, read_level)
        )
    )


async def get(request: Request) -> HttpResponse:
    body = await read_body(request, lambda tree: shaped(tree, Get))
    wanted = Wanted(body.include, explain=body.explain)
    context, collection = request.context, await collection_of(request)
    selection = await body.selection(request.body_bytes)
    check_filterable(collection, selection.where)
    page = reads.Page(body.offset or 0, body.limit)
    found = await read_collection(
        context, collection, lambda collection: reads.get_parts(context.workers, collection, selection, page, wanted)
    )
    return StreamedResponse(found) if isinstance(found, Parts) else encoded_response(found)


async def query(request: Request) -> HttpResponse:
    can_embed = bool(request.context.embedders)
    body, vectors = await read_body(request, lambda tree: _read_query(tree, can_embed), "query_embeddings")
    wanted = Wanted(body.include, explain=body.explain)
    context, collection = request.context, await collection_of(request)
    selection = await body.selection(request.body_bytes)
    embeddings = await query_vectors(context.embedders, collection, vectors, request.body_bytes)
    return encoded_response(
        await read_collection(
            context, collection, lambda collection: _query(context, collection, body, embeddings, selection, wanted)
        )
    )


async def search(request: Request) -> HttpResponse:
    can_embed = bool(request.context.embedders)
    body = await read_body(request, lambda tree: read_search(tree, can_embed=can_embed))
    context, collection = request.context, await collection_of(request)
    await off_loop(request.body_bytes, check_search, body.searches)
    embedded = await with_query_vectors(context, collection, body)
    return encoded_response(
        await read_collection(
            context, collection, lambda collection: _search(context, collection, embedded, request.body_bytes)
        )
    )


async def collection_of(request: Request) -> Collection:
    """The collection in the path. Raises InvalidArgument, NotFound."""
    path_params = request.path_params
    return await request.context.rows.resolve(
        path_params["tenant"], path_params["database"], path_params["collection_id"]
    )


async def read_collection(
    context: Context, collection: Collection, ask: Callable[[Collection], Awaitable[Result]]
) -> Result:
    """The answer of `ask`, which is asked again when the collection turns out to have other shards by now."""
    for _ in range(STALE_ROWS_MAX):
        try:
            return await ask(collection)
        except StaleGeneration:
            collection = await context.rows.refresh(collection)
    return await ask(collection)


async def read_body(request: Request, read: Callable[[Any], Body], rows: str | None = None) -> Body:
    tree = require_object(await read_json(request, rows))
    return await off_loop(request.body_bytes, read, tree)


async def _write(request: Request, op: Op) -> None:
    can_embed = bool(request.context.embedders)
    write = await read_body(request, lambda tree: read_write(op, tree, can_embed=can_embed), "embeddings")
    context, collection = request.context, await collection_of(request)
    write = await with_embeddings(context.embedders, collection, write, request.body_bytes)
    await append_write(context, collection, write, request.body_bytes)


def _check_delete(body: Delete, selection: Selection) -> None:
    """Raises InvalidArgument for selectors that cannot stand together."""
    if selection.where is not None:
        return
    if body.ids == []:
        refuse_fields({"ids, where": "Either ids or where must be specified"})
    if body.limit is not None:
        refuse_fields({"limit, where": "limit can only be specified when a where clause is provided"})


async def _delete(context: Context, collection: Collection, selection: Selection, limit: int | None) -> int:
    """How many records are said to be deleted: with a filter those that matched, without one as many as were named."""
    ids = selection.ids or []
    if selection.where is not None:
        ids = await read_collection(
            context, collection, lambda collection: reads.matching_ids(context.workers, collection, selection, limit)
        )
    await append_delete(context, collection, ids)
    return len(ids)


def _read_query(tree: Any, can_embed: bool) -> tuple[_Query, RawEmbeddings | QueryTexts]:
    texts = read_query_texts(tree) if can_embed else None
    if texts is not None:
        return shaped(tree, _Query), texts
    if "query_embeddings" not in tree:
        raise wrong_shape("missing field `query_embeddings`")
    return shaped(tree, _Query), read_embeddings(tree["query_embeddings"], encoded_allowed=False)


async def _query(
    context: Context, collection: Collection, body: _Query, embeddings: Embeddings, selection: Selection, wanted: Wanted
) -> reads.Body:
    if collection.dimension is None:  # a cached row may be older than the first write
        collection = await context.rows.refresh(collection)
    if len(embeddings.widths) > 1 or (collection.dimension is not None and embeddings.widths):
        check_width(embeddings, collection.dimension)
        refuse_fields({"query_embeddings": embeddings.problem()})
    check_filterable(collection, selection.where)
    if collection.dimension is None or not embeddings.count:
        return reads.no_hits_body(embeddings.count, wanted)
    k = N_RESULTS_DEFAULT if body.n_results is None else body.n_results
    ef_search = effective_ef_search(collection.configuration)
    return await reads.query_body(
        context.workers, collection, selection, embeddings.matrix, k, ef_search, wanted, body.read_level
    )


async def _search(context: Context, collection: Collection, body: SearchBody, size: int | None) -> bytes:
    if collection.dimension is None:  # a cached row may be older than the first write
        collection = await context.rows.refresh(collection)
    check_indexes(collection, body)
    if collection.dimension is None:
        return empty_body(body)
    searches = await off_loop(size, searches_of, collection, body)
    return await search_body(context.workers, collection, searches)
