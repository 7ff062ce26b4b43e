"""Embeds texts where a request has them in the place of vectors: documents of a write, texts of a query, what the
`$knn` of a search looks for.

Only where the operator has registered an embedding function: without one, a request that lacks embeddings is refused as
Chroma refuses it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from frontend.concurrency import off_loop
from frontend.embed.embedders import names_function
from frontend.parse.embeddings import Embeddings, RawEmbeddings, decode
from frontend.parse.search import text_refused
from frontend.parse.writes import Write, check_lengths, check_values, refuse_fields
from shared.process import metering
from shared.search.model import EMBEDDING
from shared.vectors.arrays import RowNumbers, Vectors

if TYPE_CHECKING:
    from frontend.embed.embedders import Embedders
    from frontend.parse.rank import GivenKnn
    from frontend.parse.search import SearchBody, SearchPayload
    from frontend.parse.selectors import QueryTexts
    from shared.catalog import Collection


class EmbeddingRates(Protocol):
    """Bounds the tokens that tenants have embedded per second: `frontend.admission`."""

    def charge_embedding(self, collection: Collection, texts: Sequence[str]) -> int:
        """Charges the tokens that texts probably have which are about to be embedded; how many these are, 0 where
        nothing bounds them. Raises RateLimited.
        """
        ...

    def correct_embedding(self, collection: Collection, tokens: int) -> None:
        """Charges so many tokens more, or less than none."""
        ...


class TextEmbedding:
    """Turns the texts of requests into vectors, by the embedding function that the collection selects.

    All methods raise InvalidArgument for texts that are refused or that no function is there for, and Backoff
    (RateLimited, when `rates` do),
    EmbeddingFailed or DeadlineExceeded when the function fails; nothing was stored then.
    """

    def __init__(self, embedders: Embedders, rates: EmbeddingRates | None = None) -> None:
        self._embedders = embedders
        self._rates = rates

    @property
    def available(self) -> bool:
        """Whether the operator has registered an embedding function."""
        return bool(self._embedders)

    async def query_vectors(
        self, collection: Collection, given: RawEmbeddings | QueryTexts, size: int | None
    ) -> Embeddings:
        """The vectors of a query, decoded from its body of `size` bytes or made of its texts."""
        if isinstance(given, RawEmbeddings):
            return await off_loop(size, decode, given)
        vectors = await self._embed(collection, given.texts)
        return _column(vectors, None, given.count)

    async def _embed(self, collection: Collection, texts: Sequence[str]) -> Vectors:
        charged = 0 if self._rates is None else self._rates.charge_embedding(collection, texts)
        before = _tokens_so_far()
        vectors = await self._embedders.embed(collection, texts)
        measured = _tokens_so_far() - before
        if self._rates is not None and charged and measured:  # not every endpoint tells
            self._rates.correct_embedding(collection, measured - charged)
        return vectors

    async def embed_documents(self, collection: Collection, write: Write, size: int | None) -> Write:
        """The write, its documents embedded if that is what it asks for. Whatever else is wrong with it is found
        first. `size`: bytes of the body.
        """
        if not write.embeds_documents:
            return write
        await off_loop(size, _check, write)
        documents = write.documents or []
        places = [place for place, document in enumerate(documents) if document is not None]
        if not places:
            return write
        vectors = await self._embed(collection, [text for text in documents if text is not None])
        present = None if len(places) == len(documents) else np.array(places, np.int64)
        return replace(write, embeddings=_column(vectors, present, len(documents)))

    async def embed_searches(self, collection: Collection, body: SearchBody) -> SearchBody:
        """The searches with vectors for the texts that their `$knn`s look for; each text is embedded once. The
        collection's dimension has to be current.

        A collection that has no vectors yet and names no function says nothing of how texts become vectors: there a
        text is as little of a query as it is for Chroma. Raises WrongShape then.
        """
        with_texts = [index for index, payload in enumerate(body.searches) if payload.texts]
        if not with_texts:
            return body
        refuse_fields(
            {f"searches[{index}].rank": _text_problem(payload) for index, payload in enumerate(body.searches)}
        )
        if collection.dimension is None and not names_function(collection):
            raise text_refused(with_texts[0])
        texts = list(dict.fromkeys(text for payload in body.searches for text in payload.texts))
        vectors = (await self._embed(collection, texts)).tolist()
        return _with_vectors(body, dict(zip(texts, vectors, strict=True)))


def _with_vectors(body: SearchBody, vectors: dict[str, list[float]]) -> SearchBody:
    """The searches with the vectors of these texts in the place of the texts."""

    def embedded(knn: GivenKnn) -> GivenKnn:
        return replace(knn, query=vectors[knn.query]) if isinstance(knn.query, str) else knn

    def ranked(payload: SearchPayload) -> SearchPayload:
        if payload.rank is None:
            return payload
        return replace(payload, rank=replace(payload.rank, knns=tuple(map(embedded, payload.rank.knns))))

    return replace(body, searches=tuple(map(ranked, body.searches)))


def _text_problem(payload: SearchPayload) -> str | None:
    """Why the texts of a search cannot be embedded, None when they can."""
    if all(knn.key == EMBEDDING for knn in payload.knns if isinstance(knn.query, str)):
        return None
    return f"A text can be looked for at {EMBEDDING} only: this server embeds no sparse vectors"


def _tokens_so_far() -> int:
    """The tokens that were embedded for this request, as far as somebody counts."""
    meter = metering.current.get()
    return 0 if meter is None else meter.embedding_tokens


def _check(write: Write) -> None:
    check_values(write)
    check_lengths(write)


def _column(vectors: Vectors, present: RowNumbers | None, count: int) -> Embeddings:
    """Vectors [n, d] as the column of a request with `count` rows; `present` as in Embeddings."""
    return Embeddings(vectors.reshape(-1), (vectors.shape[1],) if len(vectors) else (), present, count)
