"""Routes of records: add, update, upsert, delete, count, get, query, search.

Every handler reads from top to bottom, in the order of checks of docs/wire.md, section 2: the body is parsed, the
collection in the path is resolved, the values are validated, the request is executed, and its result is the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from frontend.collections.schema import check_filterable
from frontend.concurrency import off_loop
from frontend.http.responses import HttpResponse, empty_response, encoded_response, json_response
from frontend.http.router import Route
from frontend.parse.as_of import AsOf, check_level, query_as_of, read_as_of
from frontend.parse.body import parse_body
from frontend.parse.durability import Durability, named, requested_durability
from frontend.parse.params import query_read_level
from frontend.parse.search import check_search, read_search
from frontend.parse.selectors import check_delete, parse_delete, parse_get, parse_query
from frontend.parse.writes import check_width, read_write, refuse_fields
from frontend.read.gets import Get, Page
from frontend.read.queries import Query, empty_query_body
from frontend.read.result_limits import asked_by_get, asked_by_query, asked_by_searches, check_each, check_results
from frontend.read.search_requests import check_indexes, empty_search_body, searches_of
from frontend.request_limits import check_limit
from frontend.routes.paths import COLLECTION
from frontend.routes.resolve import missing_once_deleted, resolve, resolve_with_dimension
from shared.process.metering import count_queries
from shared.records.include import Wanted
from shared.records.model import Op
from shared.search.model import Searches
from shared.tenancy.actions import Action

if TYPE_CHECKING:
    from frontend.admission.stored_quotas import StoredQuotas
    from frontend.collections.row_cache import RowCache
    from frontend.embed.texts import TextEmbedding
    from frontend.http.request import Request
    from frontend.http.responses import Body
    from frontend.parse.embeddings import Embeddings
    from frontend.parse.writes import Write
    from frontend.read.past import Past
    from frontend.read.reader import Reader
    from frontend.write.writes import Writer
    from shared.catalog import Collection
    from shared.records.selection import Selection

Result = TypeVar("Result")
PastRead = TypeVar("PastRead", Get, Query, Searches)


class RecordRoutes:
    """Handlers of the record routes."""

    def __init__(
        self,
        rows: RowCache,
        reader: Reader,
        past: Past,
        writer: Writer,
        texts: TextEmbedding,
        durability_default: Durability,
        stored: StoredQuotas,
    ) -> None:
        self._stored = stored
        self._rows = rows
        self._reader = reader
        self._past = past
        self._writer = writer
        self._texts = texts
        self._durability_default = durability_default

    def routes(self) -> list[Route]:
        """The routes, of which each answers 404 when its collection turns out to be deleted."""
        handlers = (
            ("POST", "query", self.query),
            ("POST", "get", self.get),
            ("POST", "add", self.add),
            ("POST", "update", self.update),
            ("POST", "upsert", self.upsert),
            ("POST", "delete", self.delete),
            ("POST", "search", self.search),
            ("GET", "count", self.count),
        )
        routes = [Route(method, f"{COLLECTION}/{name}", handler) for method, name, handler in handlers]
        return missing_once_deleted(self._rows, routes)

    async def add(self, request: Request) -> HttpResponse:
        """Adds records; ids that exist stay as they are."""
        return await self._write(request, Op.ADD, 201)

    async def update(self, request: Request) -> HttpResponse:
        """Changes records; ids that don't exist are ignored."""
        return await self._write(request, Op.UPDATE)

    async def upsert(self, request: Request) -> HttpResponse:
        """Adds records, and changes those that exist."""
        return await self._write(request, Op.UPSERT)

    async def _write(self, request: Request, op: Op, status: int = 200) -> HttpResponse:
        can_embed = self._texts.available

        def read(tree: Any) -> Write:
            return read_write(op, tree, request.limits, can_embed=can_embed, size=request.body_bytes)

        write = await parse_body(request, read, "embeddings")
        durability = requested_durability(request, write.durability, self._durability_default)
        collection = await resolve(self._rows, request)
        await self._stored.check(request, collection, 0 if op is Op.UPDATE else len(write.ids))
        await self._writer.write(collection, write, request.body_bytes, durability)
        return named(empty_response(status), durability)

    async def delete(self, request: Request) -> HttpResponse:
        """Deletes records: with a filter those that match it, without a filter those that are named. The answer says
        how many; of ids that are named, all count, whether or not they exist.
        """
        body = await parse_body(request, parse_delete)
        if body.where is not None or body.where_document is not None:
            request.require(Action.GET)  # the answer tells how many records match
        durability = requested_durability(request, body.durability, self._durability_default)
        collection = await resolve(self._rows, request)
        selection = await body.selection(request.body_bytes, request.limits)
        check_delete(body, selection)
        check_filterable(collection, selection.where)
        ids = selection.ids or []
        if selection.where is not None:
            ids = await self._reader.matching_ids(collection, selection, body.limit)
        await self._writer.delete(collection, ids, durability)
        return named(json_response({"deleted": len(ids)}), durability)

    async def count(self, request: Request) -> HttpResponse:
        """The number of records."""
        read_level, as_of = query_read_level(request), query_as_of(request)
        check_level(as_of, read_level)
        collection = await resolve(self._rows, request)

        async def read(position: int | None) -> int:
            return await self._reader.count(collection, read_level, position)

        return json_response(await self._read(collection, as_of, read))

    async def get(self, request: Request) -> HttpResponse:
        """A page of the records that match, in the order of their insertion."""
        body = await parse_body(request, parse_get)
        collection = await resolve(self._rows, request)
        selection = await body.selection(request.body_bytes, request.limits)
        check_filterable(collection, selection.where)
        await check_each(self._rows, collection, request, [asked_by_get(selection, body.limit)])
        wanted = Wanted(body.include, explain=body.explain)
        get = Get(selection, Page(body.offset or 0, body.limit), wanted)

        async def read(position: int | None) -> Body:
            return await self._reader.get_chunks(collection, _at(get, position))

        return encoded_response(await self._read(collection, read_as_of(body.as_of), read))

    async def query(self, request: Request) -> HttpResponse:
        """The records nearest to each query vector."""
        can_embed = self._texts.available
        body, given = await parse_body(request, lambda tree: parse_query(tree, can_embed=can_embed), "query_embeddings")
        collection, selection = await resolve_with_dimension(
            self._rows, request, lambda: body.selection(request.body_bytes, request.limits)
        )
        asked = asked_by_query(given.count, body.k, body.include)
        check_limit("vectors or texts", given.count, request.limits.query_vectors_max, "query")
        await check_results(self._rows, collection, asked, request.limits, "query")
        await check_each(self._rows, collection, request, [body.k])
        count_queries(given.count)
        embeddings = await self._texts.query_vectors(collection, given, request.body_bytes)
        _check_query(collection, selection, embeddings)
        wanted, as_of = Wanted(body.include, explain=body.explain), read_as_of(body.as_of)
        check_level(as_of, body.read_level)
        if collection.dimension is None or not embeddings.count:
            return encoded_response(empty_query_body(embeddings.count, wanted))
        query = Query(selection, embeddings.matrix, body.k, wanted, body.read_level)

        async def read(position: int | None) -> Body:
            return await self._reader.query(collection, _at(query, position))

        return encoded_response(await self._read(collection, as_of, read))

    async def search(self, request: Request) -> HttpResponse:
        """For each search of the body the records that match, ranked by its expression."""
        can_embed = self._texts.available
        body = await parse_body(request, lambda tree: read_search(tree, request.limits, can_embed=can_embed))
        collection, _ = await resolve_with_dimension(
            self._rows, request, lambda: off_loop(request.body_bytes, check_search, body.searches, request.limits)
        )
        await check_results(self._rows, collection, asked_by_searches(body.searches), request.limits, "searches")
        await check_each(self._rows, collection, request, [search.limit for search in body.searches])
        count_queries(len(body.searches))
        body = await self._texts.embed_searches(collection, body)
        check_indexes(collection, body)
        as_of = read_as_of(body.as_of)
        check_level(as_of, body.read_level)
        if collection.dimension is None:
            return encoded_response(empty_search_body(body))
        searches = await off_loop(request.body_bytes, searches_of, collection, body)

        async def read(position: int | None) -> Body:
            return await self._reader.search(collection, _at(searches, position))

        return encoded_response(await self._read(collection, as_of, read))

    async def _read(
        self, collection: Collection, as_of: AsOf | None, read: Callable[[int | None], Awaitable[Result]]
    ) -> Result:
        """The result of `read` as of a position of the past, or (None) of now."""
        return await (read(None) if as_of is None else self._past.read(collection, as_of, read))


def _at(read: PastRead, position: int | None) -> PastRead:
    """The read as of a position of the past, or (None) of now."""
    return read if position is None else msgspec.structs.replace(read, as_of=position, past=True)


def _check_query(collection: Collection, selection: Selection, embeddings: Embeddings) -> None:
    """Raises InvalidArgument for vectors of another dimension, vectors that are not finite, and a filter that needs an
    index which is switched off. Before the first write a single width is right, whatever it is.
    """
    if len(embeddings.widths) > 1 or (collection.dimension is not None and embeddings.widths):
        check_width(embeddings, collection.dimension)
        refuse_fields({"query_embeddings": embeddings.problem()})
    check_filterable(collection, selection.where)
