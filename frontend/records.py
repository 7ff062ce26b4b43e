"""Routes of records: add, update, upsert, delete, count, get, query, search.

Each handler keeps the contract's order of checks (section 2): the body's shape, then database name, collection id and
collection, then the values.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeVar

import msgspec

from frontend import reads
from frontend.answers import Answer, answer, answer_bytes, nothing_to_say
from frontend.body import read_json, require_object, shaped, wrong_shape
from frontend.configuration import effective_ef_search
from frontend.embeddings import Embeddings, RawEmbeddings, read_embeddings
from frontend.offload import off_loop
from frontend.params import query_read_level
from frontend.request import Request
from frontend.router import Route
from frontend.rows import missing
from frontend.schema import check_filterable
from frontend.search_requests import check_indexes, empty_body, searches_of
from frontend.search_validation import SearchBody, check_search, read_search
from frontend.searching import search_body
from frontend.shell import Shell
from frontend.text_embedding import (
    QueryTexts,
    query_vectors,
    read_query_texts,
    with_embeddings,
    with_query_vectors,
)
from frontend.where_parser import parse_filters
from frontend.write_validation import check_width, read_write, refuse_fields
from frontend.writes import STALE_ROWS_MAX, append_delete, append_write
from shared.catalog import Collection
from shared.errors import Gone, StaleGeneration
from shared.include import GET_DEFAULT, QUERY_DEFAULT, Wanted
from shared.limits import U32_MAX
from shared.model import Include, Op
from shared.rpc.messages import Selection

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
        if "regex" in f"{self.where}{self.where_document}":
            size = None  # a pattern of a few bytes may take long to compile
        return Selection(self.ids, await off_loop(size, parse_filters, self.where, self.where_document))


class _Delete(_Selectors):
    limit: U32 | None = None


class _Get(_Selectors):
    limit: U32 | None = None
    offset: U32 | None = None
    include: list[Include] = msgspec.field(default_factory=lambda: list(GET_DEFAULT))


class _Query(_Selectors):
    n_results: U32 | None = None
    include: list[Include] = msgspec.field(default_factory=lambda: list(QUERY_DEFAULT))


@dataclass(frozen=True, slots=True)
class _Target:
    """The collection that a request names, found."""

    shell: Shell
    collection: Collection

    async def read(self, ask: Callable[[Collection], Awaitable[Result]]) -> Result:
        """The answer of `ask`, which is asked again when the collection turns out to have other shards by now."""
        collection = self.collection
        for _ in range(STALE_ROWS_MAX):
            try:
                return await ask(collection)
            except StaleGeneration:
                collection = await self.shell.rows.refresh(collection)
        return await ask(collection)


def routes() -> list[Route]:
    # Matched one after the other: what is asked most comes first.
    base = "/api/v2/tenants/{tenant}/databases/{database}/collections/{collection_id}"
    return [
        Route("POST", f"{base}/query", query),
        Route("POST", f"{base}/get", get),
        Route("POST", f"{base}/add", add),
        Route("POST", f"{base}/update", update),
        Route("POST", f"{base}/upsert", upsert),
        Route("POST", f"{base}/delete", delete),
        Route("GET", f"{base}/count", count),
        Route("POST", f"{base}/search", search),
    ]


async def add(request: Request) -> Answer:
    await _write(request, Op.ADD)
    return nothing_to_say(201)


async def update(request: Request) -> Answer:
    await _write(request, Op.UPDATE)
    return nothing_to_say()


async def upsert(request: Request) -> Answer:
    await _write(request, Op.UPSERT)
    return nothing_to_say()


async def delete(request: Request) -> Answer:
    body = await _read_body(request, lambda tree: shaped(tree, _Delete))
    async with _target(request) as target:
        selection = await body.selection(request.content_length)
        _check_delete(body, selection)
        check_filterable(target.collection, selection.where)
        return answer({"deleted": await _delete(target, selection, body.limit)})


async def count(request: Request) -> Answer:
    read_level = query_read_level(request)
    async with _target(request) as target:
        workers = target.shell.workers
        return answer(await target.read(lambda collection: reads.count(workers, collection, read_level)))


async def get(request: Request) -> Answer:
    body = await _read_body(request, lambda tree: shaped(tree, _Get))
    wanted = Wanted(body.include)
    async with _target(request) as target:
        selection = await body.selection(request.content_length)
        check_filterable(target.collection, selection.where)
        page = reads.Page(body.offset or 0, body.limit)
        workers = target.shell.workers
        return answer_bytes(
            await target.read(lambda collection: reads.get_body(workers, collection, selection, page, wanted))
        )


async def query(request: Request) -> Answer:
    can_embed = bool(request.shell.embedders)
    body, vectors = await _read_body(request, lambda tree: _read_query(tree, can_embed))
    wanted = Wanted(body.include)
    async with _target(request) as target:
        return answer_bytes(await _query(target, body, vectors, wanted, request.content_length))


async def search(request: Request) -> Answer:
    can_embed = bool(request.shell.embedders)
    body = await _read_body(request, lambda tree: read_search(tree, can_embed=can_embed))
    async with _target(request) as target:
        return answer_bytes(await _search(target, body, request.content_length))


@asynccontextmanager
async def _target(request: Request) -> AsyncIterator[_Target]:
    """The collection in the path. When it turns out to be deleted, that is the same 404 as one never found."""
    shell = request.shell
    path = request.place
    collection = await shell.rows.resolve(path["tenant"], path["database"], path["collection_id"])
    try:
        yield _Target(shell, collection)
    except Gone:
        shell.rows.forget(collection.id)
        raise missing(collection.id) from None


async def _read_body(request: Request, read: Callable[[Any], Body]) -> Body:
    return await off_loop(request.content_length, read, require_object(await read_json(request)))


async def _write(request: Request, op: Op) -> None:
    can_embed = bool(request.shell.embedders)
    write = await _read_body(request, lambda tree: read_write(op, tree, can_embed=can_embed))
    async with _target(request) as target:
        write = await with_embeddings(target.shell.embedders, target.collection, write, request.content_length)
        await append_write(target.shell, target.collection, write, request.content_length)


def _check_delete(body: _Delete, selection: Selection) -> None:
    """Raises InvalidArgument for selectors that cannot stand together."""
    if selection.where is not None:
        return
    if body.ids == []:
        refuse_fields({"ids, where": "Either ids or where must be specified"})
    if body.limit is not None:
        refuse_fields({"limit, where": "limit can only be specified when a where clause is provided"})


async def _delete(target: _Target, selection: Selection, limit: int | None) -> int:
    """How many records are said to be deleted: with a filter those that matched, without one as many as were named."""
    ids = selection.ids or []
    if selection.where is not None:
        workers = target.shell.workers
        ids = await target.read(lambda collection: reads.matching_ids(workers, collection, selection, limit))
    await append_delete(target.shell, target.collection, ids)
    return len(ids)


def _read_query(tree: Any, can_embed: bool) -> tuple[_Query, RawEmbeddings | QueryTexts]:
    texts = read_query_texts(tree) if can_embed else None
    if texts is not None:
        return shaped(tree, _Query), texts
    if "query_embeddings" not in tree:
        raise wrong_shape("missing field `query_embeddings`")
    return shaped(tree, _Query), read_embeddings(tree["query_embeddings"], encoded_allowed=False)


async def _query(
    target: _Target, body: _Query, raw: RawEmbeddings | QueryTexts, wanted: Wanted, size: int | None
) -> bytes:
    selection = await body.selection(size)
    embeddings = await query_vectors(target.shell.embedders, target.collection, raw, size)
    return await target.read(
        lambda collection: _query_now(target.shell, collection, body, embeddings, selection, wanted)
    )


async def _query_now(
    shell: Shell, collection: Collection, body: _Query, embeddings: Embeddings, selection: Selection, wanted: Wanted
) -> bytes:
    if collection.dimension is None:  # a cached row may be older than the first write
        collection = await shell.rows.refresh(collection)
    if len(embeddings.widths) > 1 or (collection.dimension is not None and embeddings.widths):
        check_width(embeddings, collection.dimension)
        refuse_fields({"query_embeddings": embeddings.problem()})
    check_filterable(collection, selection.where)
    if collection.dimension is None or not embeddings.count:
        return reads.no_hits_body(embeddings.count, wanted)
    k = N_RESULTS_DEFAULT if body.n_results is None else body.n_results
    ef_search = effective_ef_search(collection.configuration)
    return await reads.query_body(shell.workers, collection, selection, embeddings.matrix, k, ef_search, wanted)


async def _search(target: _Target, body: SearchBody, size: int | None) -> bytes:
    check_search(body.searches)
    body = await with_query_vectors(target.shell, target.collection, body)
    return await target.read(lambda collection: _search_now(target.shell, collection, body, size))


async def _search_now(shell: Shell, collection: Collection, body: SearchBody, size: int | None) -> bytes:
    if collection.dimension is None:  # a cached row may be older than the first write
        collection = await shell.rows.refresh(collection)
    check_indexes(collection, body)
    if collection.dimension is None:
        return empty_body(body)
    searches = await off_loop(size, searches_of, collection, body)
    return await search_body(shell.workers, collection, searches)
