"""One search, from a source of records to its answer. What is read, and in which order:

bm25        how rare the indices of the queries are       only with such a `$knn`
neighbours  of every `$knn`                               or, without a rank, the page itself
metadata    of all that was ranked                        only to group and to sort
page        ids and the columns that were asked for       of the records on the page alone
counts                                                    only when asked for
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from shared.records.columns import Columns
from shared.search.expression import node_count
from shared.search.grouping import survivors
from shared.search.model import DOCUMENT, EMBEDDING, METADATA, SCORE, Knn, Search, Sparse
from shared.search.ordering import sortable, sorted_places
from shared.search.ranking import Ranked, evaluate
from shared.search.source import RecordSource, Tally, WantedColumns
from shared.vectors.arrays import Positions, Scores
from shared.vectors.sparse import SparseArrays, idf_weighted

SPECIAL = (DOCUMENT, EMBEDDING, METADATA, SCORE)

NODE_BYTES: Final = 1024
CANDIDATE_BYTES: Final = 16
"""What evaluating takes, in bytes that are handled in the same time: a node, and a node for each candidate."""


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """Records of one search's page: columns and scores, parallel; `tally` when counts were asked for."""

    search: Search
    columns: Columns
    scores: Scores
    tally: Tally | None


async def run(source: RecordSource, search: Search) -> SearchAnswer:
    """The answer to one search."""
    if search.rank is None:
        inserted = await source.page(search.where, search.order_by, search.offset, search.limit)
        scores = np.arange(len(inserted), dtype=np.float32)
    else:
        inserted, scores = await _ranked_page(source, search)
    fields = any(key not in SPECIAL for key in search.select)
    wanted = WantedColumns(
        documents=DOCUMENT in search.select,
        metadatas=METADATA in search.select or fields,
        embeddings=EMBEDDING in search.select,
    )
    columns = await source.rows(inserted, wanted) if len(inserted) else Columns(ids=[])
    tally = None
    if search.count or search.facets is not None:
        tally = await source.tally(search.where, search.facets.keys if search.facets else ())
    return SearchAnswer(search, columns, scores, tally)


async def _ranked_page(source: RecordSource, search: Search) -> tuple[Positions, Scores]:
    assert search.rank is not None
    knns = await _weighted(source, search.knns)
    found = await source.nearest(search.where, knns) if knns else []
    candidates = sum(len(one.inserted) for one in found)
    size = node_count(search.rank) * (NODE_BYTES + CANDIDATE_BYTES * candidates)
    ranked = await source.compute(size, evaluate, search.rank, found)
    if len(ranked.inserted) and (search.group_by is not None or search.order_by):
        ranked = await _by_metadata(source, search, ranked)
    end = None if search.limit is None else search.offset + search.limit
    return ranked.inserted[search.offset : end], ranked.scores[search.offset : end]


async def _weighted(source: RecordSource, knns: Sequence[Knn]) -> list[Knn]:
    """The queries with their values multiplied by the rarity of their indices, where that is still to be done."""
    open_places = [place for place, knn in enumerate(knns) if isinstance(knn.query, Sparse) and knn.query.bm25]
    if not open_places:
        return list(knns)
    vectors = [sparse_arrays(knns[place]) for place in open_places]
    keys = [_sparse(knns[place]).key for place in open_places]
    found = await source.frequencies([(key, vector.indices) for key, vector in zip(keys, vectors, strict=True)])
    done = list(knns)
    for place, vector, having in zip(open_places, vectors, found.having, strict=True):
        values = idf_weighted(vector, found.records, having).values.astype("<f4", copy=False).tobytes()
        query = msgspec.structs.replace(_sparse(knns[place]), values=values, bm25=False)
        done[place] = msgspec.structs.replace(knns[place], query=query)
    return done


def sparse_arrays(knn: Knn) -> SparseArrays:
    """The query of a `$knn` that is sparse."""
    query = _sparse(knn)
    return SparseArrays(np.frombuffer(query.indices, "<u4"), np.frombuffer(query.values, "<f4"))


def _sparse(knn: Knn) -> Sparse:
    assert isinstance(knn.query, Sparse)
    return knn.query


async def _by_metadata(source: RecordSource, search: Search, ranked: Ranked) -> Ranked:
    """Grouped, then sorted."""
    read = await source.rows(ranked.inserted, WantedColumns(metadatas=True))
    texts = read.metadatas or []
    return await source.compute(sum(len(text) for text in texts if text), _ordered, search, ranked, texts)


def _ordered(search: Search, ranked: Ranked, texts: Sequence[str | None]) -> Ranked:
    metadatas: list[dict[str, Any]] = [{} if text is None else orjson.loads(text) for text in texts]
    places = np.arange(len(metadatas))
    if search.group_by is not None:
        places = np.array(survivors(search.group_by, ranked.scores.tolist(), metadatas), np.int64)
    if search.order_by:
        places = places[np.argsort(ranked.inserted[places])]
        keys = [step.key for step in search.order_by]
        values = [[sortable(metadatas[place], key) for key in keys] for place in places.tolist()]
        places = places[sorted_places(search.order_by, values)]
    return Ranked(ranked.inserted[places], ranked.scores[places])
