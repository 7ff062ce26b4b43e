"""Texts where embeddings are missing: documents of a write, texts of a query, what a `$knn` looks for.

Only where the operator has registered a function: without one, what has no embeddings is refused as it always was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from frontend.concurrency import off_loop
from frontend.embed.embedders import names_function
from frontend.parse.embeddings import Embeddings, RawEmbeddings, decode
from frontend.parse.search import text_refused
from frontend.parse.shapes import wrong_shape
from frontend.parse.writes import Write, check_lengths, check_values, refuse_fields
from shared.errors import InvalidArgument
from shared.search.model import EMBEDDING
from shared.vectors.arrays import RowNumbers, Vectors

if TYPE_CHECKING:
    from frontend.context import Context
    from frontend.embed.embedders import Embedders
    from frontend.parse.rank import GivenKnn
    from frontend.parse.search import SearchBody, SearchPayload
    from shared.catalog import Collection

QUERY_TEXTS: Final = ("query_texts", "queryTexts")


@dataclass(frozen=True, slots=True)
class QueryTexts:
    """Texts in the place of query embeddings."""

    texts: list[str]

    @property
    def count(self) -> int:
        return len(self.texts)


def read_query_texts(tree: Mapping[str, Any]) -> QueryTexts | None:
    """The texts of a query's body, None when it has none. Raises WrongShape; InvalidArgument for texts beside something
    that says the same.
    """
    given = [tree[name] for name in QUERY_TEXTS if tree.get(name) is not None]
    if not given:
        return None
    if len(given) > 1 or tree.get("query_embeddings") is not None:
        raise InvalidArgument("query_embeddings and query_texts cannot be given together")
    (texts,) = given
    if type(texts) is not list or not {str}.issuperset(map(type, texts)):
        raise wrong_shape("query_texts: expected a list of strings")
    return QueryTexts(texts)


async def query_vectors(
    embedders: Embedders, collection: Collection, given: RawEmbeddings | QueryTexts, size: int | None
) -> Embeddings:
    """`size`: bytes of the body. Raises InvalidArgument, and what embedding raises."""
    if isinstance(given, RawEmbeddings):
        return await off_loop(size, decode, given)
    vectors = await embedders.embed(collection, given.texts)
    return _column(vectors, None, given.count)


async def with_embeddings(embedders: Embedders, collection: Collection, write: Write, size: int | None) -> Write:
    """The write, its documents embedded if that is what it asks for. Whatever else is wrong with it is found before.
    Raises InvalidArgument, and what embedding raises; nothing was stored then.
    """
    if not write.embeds_documents:
        return write
    await off_loop(size, _check, write)
    documents = write.documents or []
    places = [place for place, document in enumerate(documents) if document is not None]
    if not places:
        return write
    vectors = await embedders.embed(collection, [text for text in documents if text is not None])
    present = None if len(places) == len(documents) else np.array(places, np.int64)
    return replace(write, embeddings=_column(vectors, present, len(documents)))


async def with_query_vectors(context: Context, collection: Collection, body: SearchBody) -> SearchBody:
    """The searches with vectors for the texts that their `$knn`s look for; each text is embedded once.

    A collection that has no vectors yet and names no function says nothing of how texts become vectors: there a text is
    as little of a query as it is for Chroma. Raises WrongShape then, InvalidArgument, and what embedding raises.
    """
    asking = [index for index, payload in enumerate(body.searches) if payload.texts]
    if not asking:
        return body
    refuse_fields({f"searches[{index}].rank": _text_problem(payload) for index, payload in enumerate(body.searches)})
    if collection.dimension is None and not names_function(collection):
        collection = await context.rows.refresh(collection)  # a cached row may be older than the first write
        if collection.dimension is None:
            raise text_refused(asking[0])
    texts = list(dict.fromkeys(text for payload in body.searches for text in payload.texts))
    vectors = dict(zip(texts, (await context.embedders.embed(collection, texts)).tolist(), strict=True))

    def embedded(knn: GivenKnn) -> GivenKnn:
        return replace(knn, query=vectors[knn.query]) if isinstance(knn.query, str) else knn

    def ranked(payload: SearchPayload) -> SearchPayload:
        if payload.rank is None:
            return payload
        return replace(payload, rank=replace(payload.rank, knns=tuple(map(embedded, payload.rank.knns))))

    return replace(body, searches=tuple(map(ranked, body.searches)))


def _text_problem(payload: SearchPayload) -> str | None:
    if all(knn.key == EMBEDDING for knn in payload.knns if isinstance(knn.query, str)):
        return None
    return f"A text can be looked for at {EMBEDDING} only: this server embeds no sparse vectors"


def _check(write: Write) -> None:
    check_values(write)
    check_lengths(write)


def _column(vectors: Vectors, present: RowNumbers | None, count: int) -> Embeddings:
    return Embeddings(vectors.reshape(-1), (vectors.shape[1],) if len(vectors) else (), present, count)
