"""How many records a request may ask for: a few bytes can ask for millions of them.

One vector or one search of a request may ask for all records that there are. The sum of what the others ask for is
limited, and what is more than the collection's positions counts as its positions: clients ask for more than there is to
get all. A record
that comes with its document, metadata, uri or embedding counts for RICH, one with its id and distance for one.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final

from frontend.request_limits import RequestLimits, check_limit
from shared.errors import Unavailable
from shared.records.model import Include
from shared.tenancy.quotas import Quota

if TYPE_CHECKING:
    from frontend.collections.row_cache import RowCache
    from frontend.http.request import Request
    from frontend.parse.search import SearchPayload
    from shared.catalog import Collection
    from shared.records.selection import Selection

RICH: Final = 10
_PLAIN: Final = frozenset({Include.DISTANCES})
_PLAIN_KEYS: Final = frozenset({"#score", "#id"})

Asked = Sequence[tuple[int, int | None]]
"""For a vector or a search each: the weight of a record, and the number of records wanted (None: all)."""


def asked_by_get(selection: Selection, limit: int | None) -> int | None:
    """The records that a get asks for, None: all."""
    if selection.ids is None:
        return limit
    return len(selection.ids) if limit is None else min(limit, len(selection.ids))


def asked_by_query(vectors: int, n_results: int, include: Sequence[Include]) -> Asked:
    """The records that a query asks for, vector by vector."""
    return [(1 if _PLAIN.issuperset(include) else RICH, n_results)] * vectors


def asked_by_searches(searches: Sequence[SearchPayload]) -> Asked:
    """The records that searches ask for, search by search, and then the values of their facets."""
    records: Asked = [(1 if search.select <= _PLAIN_KEYS else RICH, search.limit) for search in searches]
    facets = [search.facets for search in searches if search.facets is not None]
    return [*records, *((1, each.limit) for each in facets for _ in each.keys)]


async def check_results(
    rows: RowCache, collection: Collection, asked: Asked, limits: RequestLimits, where: str
) -> None:
    """Raises LimitExceeded for a request that asks for too much. `where` names what asks. The row is read anew where it
    matters how many positions there are: the cached one may be older than a large write.
    """
    most = limits.results_max
    if _beside_the_largest(weight * (most if count is None else count) for weight, count in asked) <= most:
        return
    with contextlib.suppress(Unavailable):  # the reads that the cached row is good for go on without the catalog
        collection = await rows.refresh(collection)
    head = collection.head
    total = _beside_the_largest(weight * (head if count is None else min(count, head)) for weight, count in asked)
    check_limit(f"results (one with more than its id and distance counts for {RICH})", total, most, where)


async def check_each(rows: RowCache, collection: Collection, request: Request, asked: Iterable[int | None]) -> None:
    """Raises QuotaExceeded when a vector, a search or a page of the request asks for more results (None: all) than the
    tenant's quota allows. What is more than the collection's positions counts as these.
    """
    most = request.quotas.most(Quota.RESULTS)
    largest = max((math.inf if count is None else count for count in asked), default=0)
    if largest <= most:
        return
    with contextlib.suppress(Unavailable):  # as above
        collection = await rows.refresh(collection)
    request.check_quota(Quota.RESULTS, min(largest, collection.head))


def _beside_the_largest(amounts: Iterable[int]) -> int:
    """The sum of all amounts but the largest."""
    listed = list(amounts)
    return sum(listed) - max(listed, default=0)
