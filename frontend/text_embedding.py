"""Texts where embeddings are missing: documents of a write, query texts.

Only where the operator has registered a function: without one, what has no embeddings is refused as it always was.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from frontend.body import wrong_shape
from frontend.embeddings import Embeddings, Floats, RawEmbeddings, decode
from frontend.offload import off_loop
from frontend.write_validation import Write, check_lengths, check_values
from shared.errors import InvalidArgument

if TYPE_CHECKING:
    from frontend.embedders import Embedders
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


def _check(write: Write) -> None:
    check_values(write)
    check_lengths(write)


def _column(vectors: Floats, present: np.typing.NDArray[np.int64] | None, count: int) -> Embeddings:
    return Embeddings(vectors.reshape(-1), (vectors.shape[1],) if len(vectors) else (), present, count)
