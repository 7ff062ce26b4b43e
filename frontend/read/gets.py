"""Gets: the records that a selection matches, in the order of their insertion, from all shards of a collection.

The worker of a collection with one shard encodes the answer itself. Otherwise the frontend merges what the shards
answer. A page over several shards is read in two phases then, so that no shard sends rows that are not on the page:

1. every shard names the insertion positions of its first `offset + limit` matches, and the log position it read up to;
2. the shards that have rows on the page send exactly those, as of the log position of phase 1.

Everything raises StaleRead when a shard cannot be read as of the position that was asked for, or of phase 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import msgspec

from frontend.concurrency import off_loop
from frontend.read.merge import encoded_bytes, explanations, merge_get, merged_bytes, page_of, positions
from frontend.read.shards import ask_shards, concerned, first_shard
from shared.process.concurrency import together
from shared.records.answers import encode_get
from shared.records.columns import Columns
from shared.records.explanation import Explanation
from shared.records.include import Wanted
from shared.records.selection import Selection
from shared.rpc.messages import GetRequest, GetResponse

if TYPE_CHECKING:
    from frontend.http.responses import Body, EncodedBody
    from frontend.read.workers import Workers
    from shared.catalog import Collection

UNCHUNKED_ROWS_MAX: Final = 256
"""Number of records up to which an answer is not worth being written chunk by chunk."""


class Page(msgspec.Struct, frozen=True):
    """`offset` of the matching records are skipped, at most `limit` follow (None: all)."""

    offset: int = 0
    limit: int | None = None

    @property
    def end(self) -> int | None:
        """The number of first matches that the page lies in, None when it has no end."""
        return None if self.limit is None else self.offset + self.limit


class Get(msgspec.Struct, frozen=True):
    """A get of a client: which records, which page of them, what of them; as of a log position, or (None) as of now."""

    selection: Selection
    page: Page
    wanted: Wanted
    as_of: int | None = None
    past: bool = False
    """Whether `as_of` may be a position of the past, which the workers have to look for."""


@dataclass(frozen=True, slots=True)
class _Found:
    """Merged records, and the explanation of every answer of a worker, if explanations are wanted."""

    columns: Columns
    explanations: list[Explanation]


async def get_body(workers: Workers, collection: Collection, get: Get) -> EncodedBody:
    """The body of the answer as a whole."""
    if _is_encoded_by_the_worker(collection, get):
        return await workers.get_body(_request_to_the_only_shard(collection, get))
    found = await _find(workers, collection, get)
    return await off_loop(encoded_bytes(found.columns), encode_get, found.columns, get.wanted, found.explanations)


async def get_chunks(workers: Workers, collection: Collection, get: Get) -> Body:
    """The body of the answer, in chunks when it is long and the worker encodes it."""
    if not _is_encoded_by_the_worker(collection, get):
        return await get_body(workers, collection, get)
    rows_max = [get.page.limit, None if get.selection.ids is None else len(get.selection.ids)]
    is_short = any(rows is not None and rows <= UNCHUNKED_ROWS_MAX for rows in rows_max)
    request = _request_to_the_only_shard(collection, get)
    if not is_short:
        request = msgspec.structs.replace(request, in_parts=True)
    return await workers.get_chunks(request)


async def matching_ids(
    workers: Workers, collection: Collection, selection: Selection, limit: int | None, as_of: int | None = None
) -> list[str]:
    """Ids of the first `limit` matching records in the order of insertion, as of a log position or (None) of now."""
    request = GetRequest(first_shard(collection, as_of=as_of), selection)
    return (await _find_in_one_phase(workers, collection, request, Page(limit=limit))).columns.ids


def _is_encoded_by_the_worker(collection: Collection, get: Get) -> bool:
    return collection.shards == 1 and not get.wanted.explain


def _request(collection: Collection, get: Get) -> GetRequest:
    """The request to every shard, addressed to the first shard, for all matching records."""
    wanted = get.wanted
    return GetRequest(
        first_shard(collection, as_of=get.as_of, past=get.past),
        get.selection,
        documents=wanted.documents,
        metadatas=wanted.metadatas,
        uris=wanted.uris_or_metadatas,
        embeddings=wanted.embeddings,
        explain=wanted.explain,
    )


def _request_to_the_only_shard(collection: Collection, get: Get) -> GetRequest:
    request = _request(collection, get)
    return msgspec.structs.replace(request, offset=get.page.offset, limit=get.page.limit, include=get.wanted.given)


async def _find(workers: Workers, collection: Collection, get: Get) -> _Found:
    request, page, wanted = _request(collection, get), get.page, get.wanted
    has_columns = wanted.documents or wanted.uris_or_metadatas or wanted.embeddings
    if collection.shards == 1 or page.limit is None or not has_columns:
        return await _find_in_one_phase(workers, collection, request, page)
    return await _find_in_two_phases(workers, collection, request, page)


async def _find_in_one_phase(workers: Workers, collection: Collection, request: GetRequest, page: Page) -> _Found:
    if collection.shards == 1:
        answer = await workers.get(msgspec.structs.replace(request, offset=page.offset, limit=page.limit))
        return _Found(answer.columns, explanations([answer]))
    answers = await ask_shards(
        concerned(collection, request.selection),
        lambda shard: workers.get(msgspec.structs.replace(request, shard=shard, limit=page.end)),
        request.shard,
    )
    columns = await off_loop(merged_bytes(answers), merge_get, answers, page.offset, page.limit)
    return _Found(columns, explanations(answers))


async def _find_in_two_phases(workers: Workers, collection: Collection, request: GetRequest, page: Page) -> _Found:
    """Raises StaleRead when a shard cannot be read as of the position of the first phase any more."""
    shards = concerned(collection, request.selection)
    matches = await ask_shards(
        shards,
        lambda shard: workers.get(
            GetRequest(shard, request.selection, limit=page.end, ids=False, explain=request.explain)
        ),
        request.shard,
    )
    requests = _requests_for_the_page(shards, request, page, matches)
    if not requests:
        return _Found(_no_records(request), explanations(matches))
    answers = await together([workers.get(each) for each in requests])
    columns = await off_loop(merged_bytes(answers), merge_get, answers)
    return _Found(columns, explanations([*matches, *answers]))


def _requests_for_the_page(
    shards: Sequence[int], request: GetRequest, page: Page, matches: Sequence[GetResponse]
) -> list[GetRequest]:
    """The requests of the second phase, one to each of the shards that has records on the page."""
    on_the_page = page_of([positions(answer.inserted) for answer in matches], page.offset, page.limit)
    return [
        msgspec.structs.replace(
            request,
            shard=msgspec.structs.replace(request.shard, shard=number, as_of=answer.position),
            selection=Selection(),
            inserted=inserted.astype("<i8", copy=False).tobytes(),
        )
        for number, answer, inserted in zip(shards, matches, on_the_page, strict=True)
        if len(inserted)
    ]


def _no_records(request: GetRequest) -> Columns:
    """No rows, but the columns that were asked for."""
    return Columns(
        ids=[],
        documents=[] if request.documents else None,
        metadatas=[] if request.metadatas else None,
        uris=[] if request.uris else None,
        embeddings=b"" if request.embeddings else None,
    )
