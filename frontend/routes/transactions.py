"""Routes of conditional transactions: `conditional/get` and `conditional/commit`. The server keeps nothing between the
two: the client remembers its token, what it read, and what it wants to write.
"""

from __future__ import annotations

import enum
import uuid
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from frontend.collections.current_row import with_current_row
from frontend.collections.schema import check_filterable
from frontend.concurrency import off_loop
from frontend.http.responses import HttpResponse, encoded_response, json_response
from frontend.http.router import Route
from frontend.parse.body import parse_body
from frontend.parse.durability import Durability, named, requested_durability
from frontend.parse.metadata_values import I64_MAX
from frontend.parse.selectors import DeleteBody, GetBody, parse_delete
from frontend.parse.shapes import shaped
from frontend.parse.writes import Write, read_write
from frontend.read.gets import Get, Page
from frontend.read.result_limits import asked_by_get, check_each
from frontend.request_limits import RequestLimits, check_limit
from frontend.routes.paths import COLLECTION
from frontend.routes.resolve import missing_once_deleted, resolve
from frontend.write.writes import deletion, prepare
from shared.errors import InvalidArgument
from shared.limits import READ_IDS_MAX
from shared.records.include import Wanted
from shared.records.model import Op
from shared.tenancy.actions import Action

if TYPE_CHECKING:
    from frontend.admission.stored_quotas import StoredQuotas
    from frontend.collections.row_cache import RowCache
    from frontend.embed.texts import TextEmbedding
    from frontend.http.request import Request
    from frontend.read.point_in_time import PointInTimeReader
    from frontend.write.operations import Operations
    from frontend.write.transactions import Committer
    from shared.catalog import Collection
    from shared.log.append import Appended

Token = Annotated[int, msgspec.Meta(ge=0, le=I64_MAX)]


class Verb(enum.StrEnum):
    """The kind of an operation of a commit."""

    ADD = "add"
    UPDATE = "update"
    UPSERT = "upsert"
    DELETE = "delete"


class ConditionalGet(GetBody):
    """Body of POST .../conditional/get: that of a get, and the token of the transaction's earlier reads."""

    read_token: Token | None = None


class CommitOperation(msgspec.Struct, frozen=True):
    """An operation of a commit; `payload` is the body of the route that has the operation's name."""

    operation: Verb
    payload: dict[str, Any]


class ConditionalCommit(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST .../conditional/commit."""

    operations: list[CommitOperation]
    read_token: Token | None = None
    read_ids: list[str] = []
    durability: str | None = None


class TransactionRoutes:
    """Handlers of the transaction routes."""

    def __init__(
        self,
        rows: RowCache,
        reader: PointInTimeReader,
        committer: Committer,
        texts: TextEmbedding,
        durability_default: Durability,
        stored: StoredQuotas,
    ) -> None:
        self._stored = stored
        self._rows = rows
        self._reader = reader
        self._committer = committer
        self._texts = texts
        self._durability_default = durability_default

    def routes(self) -> list[Route]:
        """The routes, of which each answers 404 when its collection turns out to be deleted."""
        base = COLLECTION + "/conditional"
        routes = [Route("POST", base + "/get", self.get), Route("POST", base + "/commit", self.commit)]
        return missing_once_deleted(self._rows, routes)

    async def get(self, request: Request) -> HttpResponse:
        """The answer of a get as of the token, and the token."""
        body = await parse_body(request, lambda tree: shaped(tree, ConditionalGet))
        collection = await resolve(self._rows, request)
        if body.as_of is not None:
            raise InvalidArgument("as_of: the reads of a transaction are as of its read_token")
        selection = await body.selection(request.body_bytes, request.limits)
        check_filterable(collection, selection.where)
        await check_each(self._rows, collection, request, [asked_by_get(selection, body.limit)])
        wanted = Wanted(body.include, explain=body.explain)
        get = Get(selection, Page(body.offset or 0, body.limit), wanted)
        found, token = await self._reader.get(collection, get, body.read_token)
        return encoded_response(b"".join((memoryview(found)[:-1], b',"read_token":%d}' % token)))

    async def commit(self, request: Request) -> HttpResponse:
        """Writes all operations, or (409) none of them when something that was read has been written since."""
        can_embed = self._texts.available
        body, writes = await parse_body(request, lambda tree: _parse_commit(tree, can_embed, request.limits))
        request.require(*actions_of(body))
        durability = requested_durability(request, body.durability, self._durability_default)
        collection = await resolve(self._rows, request)
        _check_commit(body)
        if any(each.operation is not Verb.DELETE for each in body.operations):
            await self._stored.check(request, collection, _records_added(writes))
        request_id = uuid.uuid4().hex

        async def commit(current: Collection) -> Appended:
            operations = [await self._operations(current, write, request.body_bytes) for write in writes]
            if not any(each.ids for each in operations):
                raise InvalidArgument("A conditional commit has at least one operation")
            return await self._committer.commit(
                current, operations, body.read_token, body.read_ids, request_id, durability
            )

        appended = await with_current_row(self._rows, collection, commit)
        count = appended.head - appended.first
        answer = json_response({"first_inserted_record_offset": appended.first, "record_count": count})
        return named(answer, durability)

    async def _operations(self, collection: Collection, write: Write | DeleteBody, size: int | None) -> Operations:
        """The operations that one member of the commit appends. `size`: bytes of the body. Raises InvalidArgument."""
        if isinstance(write, DeleteBody):
            return _deletion(write)
        embedded = await self._texts.embed_documents(collection, write, size)
        prepared = await off_loop(size, prepare, embedded, collection.dimension, size)
        if prepared.operations is None:
            assert prepared.refusal is not None
            raise prepared.refusal
        return prepared.operations


def actions_of(body: ConditionalCommit) -> frozenset[Action]:
    """The actions that a commit needs: those of its operations, and to read when it says what was read, because
    whether it conflicts tells whether that was written since.
    """
    read = [Action.GET] if body.read_token is not None or body.read_ids else []
    return frozenset([Action[each.operation.name] for each in body.operations] + read)


def _parse_commit(
    tree: Any, can_embed: bool, limits: RequestLimits
) -> tuple[ConditionalCommit, list[Write | DeleteBody]]:
    body = shaped(tree, ConditionalCommit)
    records = sum(len(each.payload["ids"]) for each in body.operations if type(each.payload.get("ids")) is list)
    check_limit("records", records, limits.ids_max, "operations")
    return body, [
        parse_delete(each.payload)
        if each.operation is Verb.DELETE
        else read_write(Op[each.operation.name], each.payload, limits, can_embed=can_embed)
        for each in body.operations
    ]


def _records_added(writes: list[Write | DeleteBody]) -> int:
    """The records that a commit adds at most."""
    return sum(len(write.ids) for write in writes if not isinstance(write, DeleteBody) and write.op is not Op.UPDATE)


def _check_commit(body: ConditionalCommit) -> None:
    if body.read_ids and body.read_token is None:
        raise InvalidArgument("read_ids without a read_token: nothing says when they were read")
    if len(body.read_ids) > READ_IDS_MAX:
        raise InvalidArgument(f"A conditional commit depends on {READ_IDS_MAX} ids at most, got {len(body.read_ids)}")
    if "" in body.read_ids:
        raise InvalidArgument("Empty ID, ID must have at least one character")


def _deletion(body: DeleteBody) -> Operations:
    if not body.ids or body.limit is not None or body.where is not None or body.where_document is not None:
        raise InvalidArgument("transactional predicate deletes are not supported")
    return deletion(body.ids)
