"""Executes one search over a source of records. What is read, in this order:

```text
frequencies   how many records have each index of the queries     only for a `$knn` that is weighted by BM25
neighbours    the nearest records of every `$knn`                 without a rank instead: the page itself
metadata      of all records that were ranked                     only to group and to sort
rows          ids and the selected columns                        of the records on the page alone
tally         counts and facets                                   only when the search wants them
```
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
import orjson

from shared.process import work
from shared.records.columns import Columns
from shared.search.expression import node_count
from shared.search.grouping import kept_of_groups
from shared.search.model import DOCUMENT, EMBEDDING, METADATA, SCORE, Knn, Search, Sparse
from shared.search.ordering import sortable, sorted_indices
from shared.search.ranking import Ranked, evaluate
from shared.search.source import RecordSource, Tally, WantedColumns
from shared.vectors.arrays import Positions, Scores
from shared.vectors.sparse import SparseArrays, idf_weighted

SPECIAL: Final = (DOCUMENT, EMBEDDING, METADATA, SCORE)
"""The keys of a selection that are no metadata fields, in the order in which they are echoed."""

NODE_BYTES: Final = 1024
CANDIDATE_BYTES: Final = 16
"""The time to evaluate a node of the rank expression, and a node for each candidate, in bytes that are handled in that
time.
"""


@dataclass(frozen=True, slots=True)
class SearchAnswer:
    """The records on one search's page: columns and scores, parallel; `tally` when the search wants counts."""

    search: Search
    columns: Columns
    scores: Scores
    tally: Tally | None


async def execute_search(source: RecordSource, search: Search) -> SearchAnswer:
    """The answer to one search. Raises what the source raises."""
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
    """The records on the page of a search with a rank, in order, and their scores."""
    assert search.rank is not None
    knns = await _weighted(source, search.knns)
    found = await source.nearest(search.where, knns) if knns else []
    candidates = sum(len(neighbours.inserted) for neighbours in found)
    size = node_count(search.rank) * (NODE_BYTES + CANDIDATE_BYTES * candidates)
    ranked = await source.compute(size, evaluate, search.rank, found)
    if len(ranked.inserted) and (search.group_by is not None or search.order_by):
        ranked = await _by_metadata(source, search, ranked)
    end = None if search.limit is None else search.offset + search.limit
    return ranked.inserted[search.offset : end], ranked.scores[search.offset : end]


async def _weighted(source: RecordSource, knns: Sequence[Knn]) -> list[Knn]:
    """The `$knn`s, with the values of those that are `bm25` multiplied by the inverse document frequency."""
    unweighted = [number for number, knn in enumerate(knns) if isinstance(knn.query, Sparse) and knn.query.bm25]
    if not unweighted:
        return list(knns)
    vectors = [sparse_arrays(knns[number]) for number in unweighted]
    keys = [_sparse(knns[number]).key for number in unweighted]
    found = await source.frequencies([(key, vector.indices) for key, vector in zip(keys, vectors, strict=True)])
    done = list(knns)
    for number, vector, document_frequencies in zip(unweighted, vectors, found.document_frequencies, strict=True):
        values = idf_weighted(vector, found.records, document_frequencies).values.astype("<f4", copy=False).tobytes()
        query = msgspec.structs.replace(_sparse(knns[number]), values=values, bm25=False)
        done[number] = msgspec.structs.replace(knns[number], query=query)
    return done


def sparse_arrays(knn: Knn) -> SparseArrays:
    """The query of a `$knn` whose query is sparse."""
    query = _sparse(knn)
    return SparseArrays(np.frombuffer(query.indices, "<u4"), np.frombuffer(query.values, "<f4"))


def _sparse(knn: Knn) -> Sparse:
    assert isinstance(knn.query, Sparse)
    return knn.query


async def _by_metadata(source: RecordSource, search: Search, ranked: Ranked) -> Ranked:
    """The ranked records grouped, then sorted, as the search says."""
    read = await source.rows(ranked.inserted, WantedColumns(metadatas=True))
    texts = read.metadatas or []
    return await source.compute(sum(len(text) for text in texts if text), _ordered, search, ranked, texts)


def _ordered(search: Search, ranked: Ranked, texts: Sequence[str | None]) -> Ranked:
    metadatas: list[dict[str, Any]] = [{} if text is None else orjson.loads(text) for text in work.checked(texts)]
    chosen = np.arange(len(metadatas))
    if search.group_by is not None:
        chosen = np.array(kept_of_groups(search.group_by, ranked.scores.tolist(), metadatas), np.int64)
    if search.order_by:
        chosen = chosen[np.argsort(ranked.inserted[chosen])]
        keys = [step.key for step in search.order_by]
        values = [[sortable(metadatas[index], key) for key in keys] for index in work.checked(chosen.tolist())]
        chosen = chosen[sorted_indices(search.order_by, values)]
    return Ranked(ranked.inserted[chosen], ranked.scores[chosen])
