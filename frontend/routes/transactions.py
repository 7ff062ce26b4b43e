"""Conditional transactions: `conditional/get` and `conditional/commit`. Both are stateless: the client remembers its
token, what it read, and what it wants to write.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

import msgspec

from frontend.collections.schema import check_filterable
from frontend.concurrency import off_loop
from frontend.context import Context
from frontend.embed.texts import with_embeddings
from frontend.http.request import Request
from frontend.http.responses import HttpResponse, encoded_response, json_response
from frontend.http.router import Route
from frontend.parse.metadata_values import I64_MAX
from frontend.parse.shapes import shaped
from frontend.parse.writes import Write, read_write
from frontend.read import reads
from frontend.routes.collections import COLLECTIONS
from frontend.routes.records import Delete, Get, collection_of, read_body, read_collection, while_it_exists
from frontend.write.group_commit import Operations
from frontend.write.transactions import commit, read_as_of
from frontend.write.writes import prepare
from shared.catalog import Collection
from shared.errors import InvalidArgument
from shared.limits import READ_IDS_MAX
from shared.records.include import Wanted
from shared.records.model import Op

Token = Annotated[int, msgspec.Meta(ge=0, le=I64_MAX)]


class Verb(enum.StrEnum):
    """What an operation of a commit does."""

    ADD = "add"
    UPDATE = "update"
    UPSERT = "upsert"
    DELETE = "delete"


class ConditionalGet(Get):
    """Body of POST .../conditional/get: that of a get, and the token of the transaction's earlier reads."""

    read_token: Token | None = None


class CommitOperation(msgspec.Struct, frozen=True):
    """`payload` is the body of the route that has the operation's name."""

    operation: Verb
    payload: dict[str, Any]


class ConditionalCommit(msgspec.Struct, frozen=True, kw_only=True):
    """Body of POST .../conditional/commit."""

    operations: list[CommitOperation]
    read_token: Token | None = None
    read_ids: list[str] = []


def routes() -> list[Route]:
    base = COLLECTIONS + "/{collection_id}/conditional"
    return [
        Route("POST", base + "/get", while_it_exists(conditional_get)),
        Route("POST", base + "/commit", while_it_exists(conditional_commit)),
    ]


async def conditional_get(request: Request) -> HttpResponse:
    """The answer of a get, and the token."""
    body = await read_body(request, lambda tree: shaped(tree, ConditionalGet))
    wanted = Wanted(body.include, explain=body.explain)
    context, collection = request.context, await collection_of(request)
    selection = await body.selection(request.body_bytes)
    check_filterable(collection, selection.where)
    page = reads.Page(body.offset or 0, body.limit)

    async def read(position: int) -> reads.Body:
        return await read_collection(
            context,
            collection,
            lambda collection: reads.get_body(context.workers, collection, selection, page, wanted, position),
        )

    found, token = await read_as_of(context, collection, body.read_token, read)
    return encoded_response(b"".join((memoryview(found)[:-1], b',"read_token":%d}' % token)))


async def conditional_commit(request: Request) -> HttpResponse:
    """409 when something that was read has been written since; then nothing is."""
    can_embed = bool(request.context.embedders)
    body, operations = await read_body(request, lambda tree: _read_commit(tree, can_embed))
    context, collection = request.context, await collection_of(request)
    _check_commit(body)
    prepared = [await _prepared(context, collection, one, request.body_bytes) for one in operations]
    count = sum(len(one.ids) for one in prepared)
    if not count:
        raise InvalidArgument("A conditional commit has at least one operation")
    appended = await commit(context, collection, prepared, body.read_token, body.read_ids)
    return json_response({"first_inserted_record_offset": appended.first, "record_count": count})


def _read_commit(tree: Any, can_embed: bool) -> tuple[ConditionalCommit, list[Write | Delete]]:
    body = shaped(tree, ConditionalCommit)
    return body, [
        shaped(one.payload, Delete)
        if one.operation is Verb.DELETE
        else read_write(Op[one.operation.name], one.payload, can_embed=can_embed)
        for one in body.operations
    ]


def _check_commit(body: ConditionalCommit) -> None:
    if body.read_ids and body.read_token is None:
        raise InvalidArgument("read_ids without a read_token: nothing says when they were read")
    if len(body.read_ids) > READ_IDS_MAX:
        raise InvalidArgument(f"A conditional commit depends on {READ_IDS_MAX} ids at most, got {len(body.read_ids)}")
    if "" in body.read_ids:
        raise InvalidArgument("Empty ID, ID must have at least one character")


async def _prepared(context: Context, collection: Collection, one: Write | Delete, size: int | None) -> Operations:
    """Raises InvalidArgument."""
    if isinstance(one, Delete):
        if not one.ids or one.limit is not None or one.where is not None or one.where_document is not None:
            raise InvalidArgument("transactional predicate deletes are not supported")
        return Operations(Op.DELETE, one.ids, size=sum(map(len, one.ids)))
    embedded = await with_embeddings(context.embedders, collection, one, size)
    prepared = await off_loop(size, prepare, embedded, collection.dimension, size)
    if prepared.operations is None:
        assert prepared.refusal is not None
        raise prepared.refusal
    return prepared.operations
