"""Parsing and checking the body of a write, in the order of checks of docs/wire.md, section 2 («Which error wins»).

`read_write` checks the shape, before the collection is looked up; `check_values` the values in the columns;
`check_width` the dimension; `check_lengths` the columns against each other. A write is accepted whole or refused whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import Any, Final

import msgspec

from frontend.parse.embeddings import Embeddings, RawEmbeddings, decode, read_embeddings
from frontend.parse.metadata_values import Metadatas, read_metadatas
from frontend.parse.shapes import shaped, wrong_shape
from frontend.parse.text_limits import check_metadatas, check_texts
from frontend.request_limits import DEFAULT_LIMITS, RequestLimits, check_limit
from shared.errors import InvalidArgument
from shared.records.model import Op

OPTIONAL_TEXT: Final[frozenset[type]] = frozenset({str, NoneType})


class _Body(msgspec.Struct):
    ids: list[Any]
    embeddings: Any = None
    documents: list[Any] | None = None
    uris: list[Any] | None = None
    metadatas: list[Any] | None = None
    embed_documents: Any = None
    durability: str | None = None


@dataclass(frozen=True, slots=True)
class Write:
    """An add, update or upsert of the right shape. Its columns are parallel if `check_lengths` accepts it; a column
    that is None has no value in any row. With `embeds_documents` its documents are to be embedded.
    """

    op: Op
    ids: list[str]
    embeddings: RawEmbeddings | Embeddings | None
    documents: list[str | None] | None
    uris: list[str | None] | None
    metadatas: Metadatas | None
    embeds_documents: bool = False
    durability: str | None = None
    """The durability class that the body asks for, as it was written."""


def read_write(
    op: Op, tree: Any, limits: RequestLimits = DEFAULT_LIMITS, *, can_embed: bool = False, size: int | None = None
) -> Write:
    """The body of an add, update or upsert. With `can_embed` an add or upsert may have a document for every row instead
    of embeddings, and an update without embeddings may ask for its documents to be embedded. `size`: bytes of the body.
    Raises WrongShape, LimitExceeded.
    """
    body = shaped(tree, _Body)
    _check_limits(body, limits, size)
    embeds = can_embed and body.embeddings is None and body.documents is not None
    if op is Op.UPDATE:
        embeds = embeds and body.embed_documents is True
    elif body.embeddings is None and not embeds:
        raise wrong_shape("missing field `embeddings`")
    elif embeds and body.documents is not None and None in body.documents:
        row = body.documents.index(None)
        raise wrong_shape(f"missing field `embeddings`: row {row} (counted from 0) has no document to make one from")
    return Write(
        op=op,
        ids=_texts("ids", body.ids, frozenset({str})),
        embeddings=None if body.embeddings is None else _embeddings(body.embeddings, op, limits),
        documents=None if body.documents is None else _texts("documents", body.documents, OPTIONAL_TEXT),
        uris=None if body.uris is None else _texts("uris", body.uris, OPTIONAL_TEXT),
        metadatas=None if body.metadatas is None else _metadatas(body.metadatas, op, limits),
        embeds_documents=embeds,
        durability=body.durability,
    )


def _embeddings(column: Any, op: Op, limits: RequestLimits) -> RawEmbeddings:
    raw = read_embeddings(column, nulls_allowed=op is Op.UPDATE)
    check_limit("dimensions", raw.widest, limits.dimensions_max, "embeddings")
    return raw


def _metadatas(column: list[Any], op: Op, limits: RequestLimits) -> Metadatas:
    return read_metadatas(column, patch=op is not Op.ADD, pairs_max=limits.metadata_pairs_max)


def _check_limits(body: _Body, limits: RequestLimits, size: int | None) -> None:
    """Raises LimitExceeded for a body with too many records, or a value that is too long. Columns of a wrong shape are
    refused by those who read them.
    """
    check_limit("records", len(body.ids), limits.ids_max, "ids")
    for what, column, most in (
        ("id", body.ids, limits.id_bytes_max),
        ("document", body.documents, limits.document_bytes_max),
        ("uri", body.uris, limits.uri_bytes_max),
    ):
        if column is not None and OPTIONAL_TEXT.issuperset(map(type, column)):
            check_texts(f"a record's {what}", column, most, f"{what}s")
    if body.metadatas is not None:
        check_metadatas(body.metadatas, limits, size)


def check_values(write: Write) -> Embeddings | None:
    """The write's embeddings, decoded; None when it has none. Raises InvalidArgument for values that are not valid."""
    given = write.embeddings
    embeddings = decode(given) if isinstance(given, RawEmbeddings) else given
    refuse_fields(
        {
            "metadatas": None if write.metadatas is None else write.metadatas.problem(),
            "embeddings": None if embeddings is None else embeddings.problem(),
        }
    )
    return embeddings if embeddings is not None and embeddings.widths else None


def refuse_fields(problems: Mapping[str, str | None]) -> None:
    """Raises InvalidArgument that names every field with a problem."""
    found = [f"{field}: {problem}" for field, problem in problems.items() if problem is not None]
    if found:
        raise InvalidArgument("Validation error: " + "\n".join(found))


def check_width(embeddings: Embeddings, dimension: int | None) -> int:
    """The width of all vectors, equal to the collection's dimension if that is fixed. Raises InvalidArgument."""
    if len(embeddings.widths) > 1:
        raise InvalidArgument("Inconsistent dimensions in provided embeddings")
    width = embeddings.widths[0]
    if dimension is not None and width != dimension:
        raise wrong_width(dimension, width)
    return width


def wrong_width(dimension: int, width: int) -> InvalidArgument:
    """The 400 of vectors of another dimension than the collection's."""
    return InvalidArgument(f"Collection expecting embedding with dimension of {dimension}, got {width}")


def check_lengths(write: Write) -> None:
    """Raises InvalidArgument for columns of different lengths and for an empty id."""
    if any(length != len(write.ids) for length in _column_lengths(write)):
        raise InvalidArgument("Inconsistent number of IDs, embeddings, documents, URIs and metadatas")
    if "" in write.ids:
        raise InvalidArgument("Empty ID, ID must have at least one character")


def _column_lengths(write: Write) -> Iterable[int]:
    if write.embeddings is not None:
        yield write.embeddings.count
    if write.metadatas is not None:
        yield len(write.metadatas.rows)
    for column in (write.documents, write.uris):
        if column is not None:
            yield len(column)


def _texts(field: str, column: list[Any], allowed: frozenset[type]) -> list[Any]:
    if not allowed.issuperset(map(type, column)):
        raise wrong_shape(f"{field}: expected strings")
    return column
