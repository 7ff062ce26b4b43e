"""Reads of one collection: every shard is asked at once, the answers are merged.

A page of a get over several shards is read in two phases, so that no shard sends rows that are not on the page:

1. every shard names the insertion positions of its first `offset + limit` matches, and the log position it read up to;
2. the shards that have rows on the page send exactly those, as of the log position of phase 1.

When a shard can no longer read as of that position (StaleRead: it was compacted in between), the page is read anew.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import msgspec
import numpy as np

from frontend.concurrency import off_loop, together
from frontend.read.merge import Hits, merge_get, merge_query, page_of, positions
from shared.errors import StaleRead, Unavailable
from shared.records.answers import encode_get, encode_query, refuse_unknown_ids
from shared.records.columns import Columns
from shared.records.explanation import Explanation
from shared.records.include import Wanted
from shared.records.model import ReadLevel
from shared.records.selection import Selection
from shared.rpc.messages import CountRequest, GetRequest, GetResponse, QueryRequest, QueryResponse, Shard
from shared.vectors.arrays import Vectors

if TYPE_CHECKING:
    from frontend.read.workers import Workers
    from shared.catalog import Collection
    from shared.rpc.parts import Parts

Result = TypeVar("Result")

Body = bytes | memoryview
"""An answer as it goes to the client."""

SHORT_ROWS: Final = 256
"""So many records with embeddings are not worth parts."""

STALE_READS_MAX: Final = 5
"""How often a page is begun anew."""


@dataclass(frozen=True, slots=True)
class Page:
    """`offset` of the matching records are skipped, at most `limit` follow (None: all)."""

    offset: int = 0
    limit: int | None = None


async def count(workers: Workers, collection: Collection, read_level: ReadLevel) -> int:
    """Live records."""
    answers = await _all_shards(
        collection, lambda shard: workers.count(CountRequest(msgspec.structs.replace(shard, read_level=read_level)))
    )
    return sum(answer.count for answer in answers)


async def get_body(
    workers: Workers,
    collection: Collection,
    selection: Selection,
    page: Page,
    wanted: Wanted,
    as_of: int | None = None,
) -> Body:
    """The body of the answer: the matching records of the page, in insertion order, as of a position or now. Raises
    StaleRead when some shard cannot be read as of that position.
    """
    if collection.shards == 1 and not wanted.explain:
        return await workers.get_body(_of_the_only_shard(collection, selection, page, wanted, as_of))
    request = _of_shards(collection, selection, wanted, as_of)
    told: list[Explanation] = []
    columns = await _get(workers, collection, request, page, wanted, told)
    return await off_loop(_encoded_size(columns), encode_get, columns, wanted, told)


async def get_parts(
    workers: Workers, collection: Collection, selection: Selection, page: Page, wanted: Wanted
) -> Body | Parts:
    """`get_body` as of now, for who sends it on: when it is long, in parts."""
    at_most = [page.limit, None if selection.ids is None else len(selection.ids)]
    is_short = any(rows is not None and rows <= SHORT_ROWS for rows in at_most)
    if not wanted.embeddings or is_short or collection.shards > 1 or wanted.explain:
        return await get_body(workers, collection, selection, page, wanted)
    request = _of_the_only_shard(collection, selection, page, wanted, as_of=None)
    return await workers.get_parts(msgspec.structs.replace(request, in_parts=True))


def _of_shards(collection: Collection, selection: Selection, wanted: Wanted, as_of: int | None) -> GetRequest:
    return GetRequest(
        _first_shard(collection, as_of),
        selection,
        documents=wanted.documents,
        metadatas=wanted.metadatas,
        uris=wanted.uris_or_metadatas,
        embeddings=wanted.embeddings,
        explain=wanted.explain,
    )


def _of_the_only_shard(
    collection: Collection, selection: Selection, page: Page, wanted: Wanted, as_of: int | None
) -> GetRequest:
    request = _of_shards(collection, selection, wanted, as_of)
    return msgspec.structs.replace(request, offset=page.offset, limit=page.limit, include=wanted.given)


async def _get(
    workers: Workers, collection: Collection, whole: GetRequest, page: Page, wanted: Wanted, told: list[Explanation]
) -> Columns:
    """What the workers explain is added to `told`."""
    has_columns = wanted.documents or wanted.uris_or_metadatas or wanted.embeddings
    if collection.shards > 1 and page.limit is not None and has_columns:
        return await _get_page(workers, collection, whole, page, told)
    return await _get_in_one_phase(workers, collection, whole, page, told)


async def matching_ids(workers: Workers, collection: Collection, selection: Selection, limit: int | None) -> list[str]:
    """Ids of the first `limit` matching records in insertion order."""
    request = GetRequest(_first_shard(collection), selection)
    return (await _get_in_one_phase(workers, collection, request, Page(limit=limit), [])).ids


async def query_body(
    workers: Workers,
    collection: Collection,
    selection: Selection,
    vectors: Vectors,
    k: int,
    ef_search: int,
    wanted: Wanted,
    read_level: ReadLevel = ReadLevel.INDEX_AND_WAL,
) -> Body:
    """The body of the answer: the `k` nearest matching records of each of `vectors` [n, d]. Raises InvalidArgument when
    none of the ids that it is restricted to exists.
    """
    request = QueryRequest(
        Shard(collection.id, collection.layout.first, read_level),
        embeddings=vectors.astype("<f4", copy=False).tobytes(),
        n_queries=len(vectors),
        dimension=vectors.shape[1],
        k=k,
        ef_search=ef_search,
        selection=selection,
        documents=wanted.documents,
        metadatas=wanted.metadatas,
        uris=wanted.uris_or_metadatas,
        include_embeddings=wanted.embeddings,
        explain=wanted.explain,
    )
    if collection.shards == 1 and not wanted.explain:
        return await workers.query_body(msgspec.structs.replace(request, include=wanted.given))
    shards = [Shard(collection.id, number, read_level) for number in collection.layout.numbers]
    answers = await together([workers.query(msgspec.structs.replace(request, shard=shard)) for shard in shards])
    hits = await off_loop(_size(answers), merge_query, answers, k)
    refuse_unknown_ids(selection, k, hits.columns)
    return await off_loop(_encoded_size(hits.columns), _encode_hits, hits, wanted, _told(answers))


async def _get_in_one_phase(
    workers: Workers, collection: Collection, request: GetRequest, page: Page, told: list[Explanation]
) -> Columns:
    if collection.shards == 1:
        answer = await workers.get(msgspec.structs.replace(request, offset=page.offset, limit=page.limit))
        told += _told([answer])
        return answer.columns
    enough = None if page.limit is None else page.offset + page.limit
    answers = await _all_shards(
        collection,
        lambda shard: workers.get(msgspec.structs.replace(request, shard=shard, limit=enough)),
        request.shard.as_of,
    )
    told += _told(answers)
    return await off_loop(_size(answers), merge_get, answers, page.offset, page.limit)


async def _get_page(
    workers: Workers, collection: Collection, request: GetRequest, page: Page, told: list[Explanation]
) -> Columns:
    for _ in range(STALE_READS_MAX):
        try:
            return await _get_in_two_phases(workers, collection, request, page, told)
        except StaleRead:
            if request.shard.as_of is not None:
                raise
            told.clear()  # this page is not the answer
    raise Unavailable("The collection changed too fast for a consistent read; try again")


async def _get_in_two_phases(
    workers: Workers, collection: Collection, request: GetRequest, page: Page, told: list[Explanation]
) -> Columns:
    enough = None if page.limit is None else page.offset + page.limit
    found = await _all_shards(
        collection,
        lambda shard: workers.get(
            GetRequest(shard, request.selection, limit=enough, ids=False, explain=request.explain)
        ),
        request.shard.as_of,
    )
    told += _told(found)
    chosen = page_of([positions(answer.inserted) for answer in found], page.offset, page.limit)
    rows = [
        msgspec.structs.replace(
            request,
            shard=Shard(collection.id, number, as_of=answer.position),
            selection=Selection(),
            inserted=inserted.astype("<i8", copy=False).tobytes(),
        )
        for number, answer, inserted in zip(collection.layout.numbers, found, chosen, strict=True)
        if len(inserted)
    ]
    if not rows:
        return no_columns(request)
    answers = await together([workers.get(part) for part in rows])
    told += _told(answers)
    return await off_loop(_size(answers), merge_get, answers)


def no_columns(request: GetRequest) -> Columns:
    """An answer without rows that has the columns asked for."""
    return Columns(
        ids=[],
        documents=[] if request.documents else None,
        metadatas=[] if request.metadatas else None,
        uris=[] if request.uris else None,
        embeddings=b"" if request.embeddings else None,
    )


def no_hits_body(n_queries: int, wanted: Wanted) -> bytes:
    """The answer of a collection without records."""
    nothing = Columns(ids=[], documents=[], metadatas=[], uris=[], embeddings=b"")
    return encode_query([0] * n_queries, np.empty(0, dtype=np.float32), nothing, wanted)


def _told(answers: Sequence[GetResponse] | Sequence[QueryResponse]) -> list[Explanation]:
    return [answer.explanation for answer in answers if answer.explanation is not None]


def _encode_hits(hits: Hits, wanted: Wanted, told: list[Explanation]) -> bytes:
    return encode_query(hits.counts, hits.distances, hits.columns, wanted, told)


def _size(answers: Sequence[GetResponse] | Sequence[QueryResponse]) -> int:
    """Bytes to merge, roughly, when there are several answers."""
    if len(answers) == 1:
        return 0
    return sum(len(answer.inserted) * 8 + len(answer.columns.embeddings or b"") for answer in answers)


def _encoded_size(columns: Columns) -> int:
    """Roughly the bytes of the columns once encoded."""
    texts = (columns.documents, columns.metadatas)
    return len(columns.ids) * 40 + 3 * len(columns.embeddings or b"") + sum(map(_text_size, texts))


def _text_size(column: list[str | None] | None) -> int:
    return sum(map(len, filter(None, column))) if column else 0


def _first_shard(collection: Collection, as_of: int | None = None) -> Shard:
    return Shard(collection.id, collection.layout.first, as_of=as_of)


async def _all_shards(
    collection: Collection, ask: Callable[[Shard], Awaitable[Result]], as_of: int | None = None
) -> list[Result]:
    return await together([ask(Shard(collection.id, number, as_of=as_of)) for number in collection.layout.numbers])
