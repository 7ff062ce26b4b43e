"""Queries: the records nearest to each of some vectors, from all shards of a collection.

The worker of a collection with one shard encodes the answer itself. Otherwise every shard answers with its own nearest
records, and the frontend merges them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from frontend.collections.configuration import effective_ef_search
from frontend.concurrency import off_loop
from frontend.read.merge import Hits, encoded_bytes, explanations, merge_query, merged_bytes
from frontend.read.shards import ask_shards, concerned, first_shard
from shared.records.answers import encode_query, refuse_unknown_ids
from shared.records.columns import Columns
from shared.records.explanation import Explanation
from shared.records.include import Wanted
from shared.records.model import Include, ReadLevel
from shared.records.selection import Selection
from shared.rpc.messages import QueryRequest, Shard
from shared.vectors.arrays import Vectors

if TYPE_CHECKING:
    from frontend.http.responses import Body
    from frontend.read.workers import Workers
    from shared.catalog import Collection


class Query(msgspec.Struct, frozen=True):
    """A query of a client: the `k` nearest matching records of each of `vectors`, float32 [n, d], and what is wanted of
    them; as of a log position, or (None) as of now.
    """

    selection: Selection
    vectors: Vectors
    k: int
    wanted: Wanted
    read_level: ReadLevel = ReadLevel.INDEX_AND_WAL
    as_of: int | None = None
    past: bool = False
    """Whether `as_of` may be a position of the past, which the workers have to look for."""


async def query_body(workers: Workers, collection: Collection, query: Query) -> Body:
    """The body of the answer, in chunks when it is long and the worker encodes it. Raises InvalidArgument when the
    query is restricted to ids of which none exists.
    """
    shard, wanted = first_shard(collection, query.read_level, query.as_of, past=query.past), query.wanted
    if collection.shards == 1 and not wanted.explain:
        return await workers.query_body(_request(collection, query, shard, wanted.given))
    request = _request(collection, query, shard)
    answers = await ask_shards(
        concerned(collection, query.selection),
        lambda shard: workers.query(msgspec.structs.replace(request, shard=shard)),
        shard,
    )
    hits = await off_loop(merged_bytes(answers), merge_query, answers, query.k)
    refuse_unknown_ids(query.selection, query.k, hits.columns)
    return await off_loop(encoded_bytes(hits.columns), _encode, hits, wanted, explanations(answers))


def empty_query_body(n_queries: int, wanted: Wanted) -> bytes:
    """The body of the answer to so many queries of a collection without records."""
    nothing = Columns(ids=[], documents=[], metadatas=[], uris=[], embeddings=b"")
    return encode_query([0] * n_queries, np.empty(0, dtype=np.float32), nothing, wanted)


def _request(
    collection: Collection, query: Query, shard: Shard, encoded_with: list[Include] | None = None
) -> QueryRequest:
    """`encoded_with`: what the client wants to see, for a worker that shall encode the client's answer."""
    vectors, wanted = query.vectors, query.wanted
    return QueryRequest(
        shard,
        embeddings=vectors.astype("<f4", copy=False).tobytes(),
        n_queries=len(vectors),
        dimension=vectors.shape[1],
        k=query.k,
        ef_search=effective_ef_search(collection.configuration),
        selection=query.selection,
        documents=wanted.documents,
        metadatas=wanted.metadatas,
        uris=wanted.uris_or_metadatas,
        include_embeddings=wanted.embeddings,
        include=encoded_with,
        explain=wanted.explain,
    )


def _encode(hits: Hits, wanted: Wanted, explained: list[Explanation]) -> bytes:
    return encode_query(hits.counts, hits.distances, hits.columns, wanted, explained)
