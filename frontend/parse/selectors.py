"""The bodies of get, query and delete: which records they select, and what they want to see of them.

A body's shape is checked before the collection is looked up; the filters in it are parsed after that, because the
order of checks (docs/wire.md, section 2) has their errors later.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final

import msgspec

from frontend.concurrency import off_loop
from frontend.parse.as_of import GivenAsOf
from frontend.parse.embeddings import RawEmbeddings, read_embeddings
from frontend.parse.filter_limits import check_filters
from frontend.parse.shapes import shaped, wrong_shape
from frontend.parse.where import parse_filters
from frontend.parse.writes import refuse_fields
from frontend.request_limits import RequestLimits, check_limit
from shared.errors import InvalidArgument
from shared.limits import U32_MAX
from shared.records.include import GET_DEFAULT, QUERY_DEFAULT
from shared.records.model import Include, ReadLevel
from shared.records.selection import Selection

U32 = Annotated[int, msgspec.Meta(ge=0, le=U32_MAX)]

N_RESULTS_DEFAULT: Final = 10
QUERY_TEXTS: Final = ("query_texts", "queryTexts")
"""The member with texts in the place of query embeddings, as the Python and the JavaScript client spell it."""


class Selectors(msgspec.Struct):
    """The members of a body that select records; bodies of several routes have them."""

    ids: list[str] | None = None
    where: Any = None
    where_document: Any = None

    async def selection(self, size: int | None, limits: RequestLimits) -> Selection:
        """The ids and the parsed filters. `size`: bytes of the body, by which parsing leaves the event loop. Raises
        LimitExceeded, and InvalidArgument for a filter that is none.
        """
        check_limit("ids", len(self.ids or ()), limits.ids_max, "ids")
        if self.where is None and self.where_document is None:
            return Selection(self.ids)
        if await off_loop(size, check_filters, {"where": self.where, "where_document": self.where_document}, limits):
            size = None  # a pattern of a few bytes may take long to compile
        return Selection(self.ids, await off_loop(size, parse_filters, self.where, self.where_document))


class DeleteBody(Selectors):
    """Body of POST .../delete."""

    limit: U32 | None = None
    durability: str | None = None


class GetBody(Selectors):
    """Body of POST .../get."""

    limit: U32 | None = None
    offset: U32 | None = None
    include: list[Include] = msgspec.field(default_factory=lambda: list(GET_DEFAULT))
    explain: bool = False
    as_of: GivenAsOf = None


class QueryBody(Selectors):
    """Body of POST .../query, without its query embeddings or texts."""

    n_results: U32 | None = None
    include: list[Include] = msgspec.field(default_factory=lambda: list(QUERY_DEFAULT))
    read_level: ReadLevel = ReadLevel.INDEX_AND_WAL
    explain: bool = False
    as_of: GivenAsOf = None

    @property
    def k(self) -> int:
        """The number of records wanted for each query vector."""
        return N_RESULTS_DEFAULT if self.n_results is None else self.n_results


@dataclass(frozen=True, slots=True)
class QueryTexts:
    """Texts in the place of query embeddings."""

    texts: list[str]

    @property
    def count(self) -> int:
        """The number of queries."""
        return len(self.texts)


def parse_delete(tree: Any) -> DeleteBody:
    """The body of a delete. Raises WrongShape."""
    return shaped(tree, DeleteBody)


def parse_get(tree: Any) -> GetBody:
    """The body of a get. Raises WrongShape."""
    return shaped(tree, GetBody)


def parse_query(tree: Mapping[str, Any], *, can_embed: bool) -> tuple[QueryBody, RawEmbeddings | QueryTexts]:
    """The body of a query and its vectors; with `can_embed` texts may stand in their place. Raises WrongShape, and
    InvalidArgument for texts beside vectors.
    """
    texts = _query_texts(tree) if can_embed else None
    if texts is not None:
        return shaped(tree, QueryBody), texts
    if "query_embeddings" not in tree:
        raise wrong_shape("missing field `query_embeddings`")
    return shaped(tree, QueryBody), read_embeddings(tree["query_embeddings"], encoded_allowed=False)


def _query_texts(tree: Mapping[str, Any]) -> QueryTexts | None:
    """The texts of a query's body, None when it has none."""
    given = [tree[name] for name in QUERY_TEXTS if tree.get(name) is not None]
    if not given:
        return None
    if len(given) > 1 or tree.get("query_embeddings") is not None:
        raise InvalidArgument("query_embeddings and query_texts cannot be given together")
    (texts,) = given
    if type(texts) is not list or not {str}.issuperset(map(type, texts)):
        raise wrong_shape("query_texts: expected a list of strings")
    return QueryTexts(texts)


def check_delete(body: DeleteBody, selection: Selection) -> None:
    """Raises InvalidArgument for selectors that cannot stand together."""
    if selection.where is not None:
        return
    if body.ids == []:
        refuse_fields({"ids, where": "Either ids or where must be specified"})
    if body.limit is not None:
        refuse_fields({"limit, where": "limit can only be specified when a where clause is provided"})
