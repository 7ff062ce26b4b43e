"""Translates searches as a client sends them into searches as query workers take them, completed by the collection's
row: checked against its schema and dimension, with its settings of the vector index.
"""

from __future__ import annotations

import msgspec
import numpy as np

from frontend.collections.configuration import effective_ef_search
from frontend.collections.schema import check_field, check_filterable, check_key, sparse_config
from frontend.parse.rank import GivenKnn
from frontend.parse.search import SearchBody, SearchPayload
from frontend.parse.sparse import SparseVector
from frontend.parse.writes import refuse_fields, wrong_width
from shared.catalog import Collection
from shared.records.columns import Columns
from shared.search.answer_body import encode_searches
from shared.search.execution import SearchAnswer
from shared.search.model import Dense, Knn, Search, Searches, Sparse
from shared.search.source import Tally


def check_indexes(collection: Collection, body: SearchBody) -> None:
    """Raises InvalidArgument for a filter, a field to sort by or count, or a sparse query that needs an index which the
    collection's schema has switched off.
    """
    for payload in body.searches:
        check_filterable(collection, payload.where)
        for key in (*(step.key for step in payload.order_by), *(payload.facets.keys if payload.facets else ())):
            check_field(collection.schema, key)
        for knn in payload.knns:
            if isinstance(knn.query, SparseVector):
                check_key(collection.schema, knn.key, "sparse_vector")


def searches_of(collection: Collection, body: SearchBody) -> Searches:
    """The searches for the workers of a collection whose dimension is fixed. Texts have to be embedded by now. Raises
    InvalidArgument for a vector of another dimension than the collection's, or with a number that is not finite.
    """
    return Searches([_search(collection, payload) for payload in body.searches], body.read_level)


def empty_search_body(body: SearchBody) -> bytes:
    """The body of the answer of a collection that was never written to."""
    return encode_searches(
        [
            SearchAnswer(_without_knns(payload), Columns(ids=[]), np.empty(0, np.float32), Tally(0, {}))
            for payload in body.searches
        ]
    )


def _search(collection: Collection, payload: SearchPayload) -> Search:
    return msgspec.structs.replace(_without_knns(payload), knns=[_knn(collection, knn) for knn in payload.knns])


def _without_knns(payload: SearchPayload) -> Search:
    return Search(
        where=payload.where,
        rank=None if payload.rank is None else payload.rank.expression,
        group_by=payload.group_by,
        order_by=payload.order_by,
        offset=payload.offset,
        limit=payload.limit,
        select=sorted(payload.select),
        facets=payload.facets,
        count=payload.count,
    )


def _knn(collection: Collection, knn: GivenKnn) -> Knn:
    if isinstance(knn.query, SparseVector):
        return Knn(_sparse(collection, knn.key, knn.query), knn.limit, knn.max_distance)
    with np.errstate(over="ignore"):
        vector = np.array(knn.query, np.float32)
    if len(vector) != collection.dimension:
        raise wrong_width(collection.dimension or 0, len(vector))
    if not np.isfinite(vector).all():
        refuse_fields({"rank": "Embeddings must not contain NaN or Infinity values"})
    dense = Dense(vector.astype("<f4", copy=False).tobytes(), effective_ef_search(collection.configuration))
    return Knn(dense, knn.limit, knn.max_distance)


def _sparse(collection: Collection, key: str, query: SparseVector) -> Sparse:
    vector = query.arrays()
    return Sparse(
        key,
        vector.indices.astype("<u4", copy=False).tobytes(),
        vector.values.astype("<f4", copy=False).tobytes(),
        bm25=bool(sparse_config(collection.schema, key).get("bm25")),
    )
