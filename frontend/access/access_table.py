"""The access table: for every route what it does, to what in its path, and how it is metered.

One row per route. The router takes no route without a row, `docs/api.md` and the OpenAPI document show the rows, and
whoever decides about a request (authorization, quotas, fairness, audit) goes by its row, never by its path.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from shared.tenancy.actions import Action


class About(enum.IntEnum):
    """The part of the path that the actions are done to. From TENANT on it is in one tenant, which the path names."""

    NOTHING = enum.auto()
    """Anyone may do it, without a credential."""
    SELF = enum.auto()
    """The sender itself: any valid credential will do."""
    SYSTEM = enum.auto()
    """All tenants: the scope has to be everything."""
    OWN = enum.auto()
    """Records of what is within the sender's own scope: the handler compares the scopes."""
    CRN = enum.auto()
    """The collection `{crn}`: the handler finds it among what the principal can see."""
    TENANT = enum.auto()
    """The tenant `{tenant}`."""
    DATABASE = enum.auto()
    """The database `{database}` of the tenant."""
    COLLECTION = enum.auto()
    """The collection of the database whose id is in the path."""
    NAMED_COLLECTION = enum.auto()
    """The collection of the database whose name is `{name}`: the handler looks for it among those of the
    scope."""


class Metered(enum.Enum):
    """The kind of work, for quotas, rates, fairness and usage."""

    FREE = enum.auto()
    """Nothing that costs anything worth counting."""
    READ = enum.auto()
    WRITE = enum.auto()
    CATALOG_READ = enum.auto()
    CATALOG_WRITE = enum.auto()
    CONTROL = enum.auto()
    """Work on tenants, keys and plans."""


@dataclass(frozen=True, slots=True)
class Access:
    """A row of the table. All of `actions` are needed, and one at least of `any_of` (if there are any): which one is in
    the body, and the handler asks for it.

    `whole`: it touches all that lies in what it is about, or makes something new in it, so that a scope which has only
    a part of that is not enough. `filtered`: the answer is a list or a number, of what the principal can see alone.
    `id_param` is the path parameter with a collection's id.
    """

    about: About
    actions: frozenset[Action] = frozenset()
    any_of: frozenset[Action] = frozenset()
    metered: Metered = Metered.FREE
    whole: bool = False
    filtered: bool = False
    id_param: str = "collection_id"


PUBLIC: Final = Access(About.NOTHING)
"""The row of what anyone may ask for: health, version, documentation, and paths that no route is for."""

_API: Final = "/api/v2"
_TENANTS: Final = _API + "/tenants"
_TENANT: Final = _TENANTS + "/{tenant}"
_DATABASES: Final = _TENANT + "/databases"
_DATABASE: Final = _DATABASES + "/{database}"
_COLLECTIONS: Final = _DATABASE + "/collections"
_NAMED: Final = _COLLECTIONS + "/{name}"
_COLLECTION: Final = _COLLECTIONS + "/{collection_id}"
_FUNCTION: Final = _COLLECTION + "/attached_functions/{name}"


def _row(
    about: About,
    *actions: Action,
    metered: Metered,
    whole: bool = False,
    filtered: bool = False,
    any_of: frozenset[Action] = frozenset(),
    id_param: str = "collection_id",
) -> Access:
    return Access(about, frozenset(actions), any_of, metered, whole, filtered, id_param)


_SYSTEM: Final = {
    ("GET", _API): PUBLIC,
    ("GET", _API + "/heartbeat"): PUBLIC,
    ("GET", _API + "/healthcheck"): PUBLIC,
    ("GET", _API + "/version"): PUBLIC,
    ("GET", _API + "/pre-flight-checks"): PUBLIC,
    ("GET", "/docs"): PUBLIC,
    ("GET", "/docs/"): PUBLIC,
    ("GET", "/openapi.json"): PUBLIC,
    **{(method, "/api/v1/{rest}"): PUBLIC for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS")},
    ("GET", _API + "/auth/identity"): Access(About.SELF),
    ("POST", _API + "/reset"): _row(About.SYSTEM, Action.RESET, metered=Metered.CONTROL),
}

_PLACES: Final = {
    ("POST", _TENANTS): _row(About.SYSTEM, Action.CREATE_TENANT, metered=Metered.CONTROL),
    ("GET", _TENANT): _row(About.TENANT, Action.GET_TENANT, metered=Metered.CATALOG_READ),
    ("PATCH", _TENANT): _row(About.TENANT, Action.UPDATE_TENANT, metered=Metered.CATALOG_WRITE, whole=True),
    ("POST", _DATABASES): _row(About.TENANT, Action.CREATE_DATABASE, metered=Metered.CATALOG_WRITE),
    ("GET", _DATABASES): _row(About.TENANT, Action.LIST_DATABASES, metered=Metered.CATALOG_READ, filtered=True),
    ("GET", _DATABASE): _row(About.DATABASE, Action.GET_DATABASE, metered=Metered.CATALOG_READ),
    ("DELETE", _DATABASE): _row(About.DATABASE, Action.DELETE_DATABASE, metered=Metered.CATALOG_WRITE, whole=True),
}
"""Rows of tenants and databases. A principal with some databases of a tenant may make these: the handler compares the
name.
"""

_CATALOG: Final = {
    ("POST", _COLLECTIONS): _row(
        About.DATABASE,
        any_of=frozenset({Action.CREATE_COLLECTION, Action.GET_OR_CREATE_COLLECTION}),
        metered=Metered.CATALOG_WRITE,
    ),
    ("GET", _COLLECTIONS): _row(About.DATABASE, Action.LIST_COLLECTIONS, metered=Metered.CATALOG_READ, filtered=True),
    ("GET", _DATABASE + "/collections_count"): _row(
        About.DATABASE, Action.COUNT_COLLECTIONS, metered=Metered.CATALOG_READ, filtered=True
    ),
    ("GET", _NAMED): _row(About.NAMED_COLLECTION, Action.GET_COLLECTION, metered=Metered.CATALOG_READ),
    ("DELETE", _NAMED): _row(About.NAMED_COLLECTION, Action.DELETE_COLLECTION, metered=Metered.CATALOG_WRITE),
    ("PUT", _NAMED): _row(About.COLLECTION, Action.UPDATE_COLLECTION, metered=Metered.CATALOG_WRITE, id_param="name"),
    ("GET", _COLLECTIONS + "/by-id/{collection_id}"): _row(
        About.COLLECTION, Action.GET_COLLECTION, metered=Metered.CATALOG_READ
    ),
    ("GET", _API + "/collections/{crn}"): _row(About.CRN, Action.GET_COLLECTION_BY_CRN, metered=Metered.CATALOG_READ),
    ("GET", _COLLECTION + "/indexing_status"): _row(
        About.COLLECTION, Action.INDEXING_STATUS, metered=Metered.CATALOG_READ
    ),
    ("POST", _COLLECTION + "/fork"): _row(
        About.COLLECTION,
        Action.FORK_COLLECTION,
        Action.CREATE_COLLECTION,
        metered=Metered.CATALOG_WRITE,
        whole=True,
    ),
    ("GET", _COLLECTION + "/fork_count"): _row(About.COLLECTION, Action.COUNT_FORKS, metered=Metered.CATALOG_READ),
}

_RECORDS: Final = {
    ("POST", _COLLECTION + "/add"): _row(About.COLLECTION, Action.ADD, metered=Metered.WRITE),
    ("POST", _COLLECTION + "/update"): _row(About.COLLECTION, Action.UPDATE, metered=Metered.WRITE),
    ("POST", _COLLECTION + "/upsert"): _row(About.COLLECTION, Action.UPSERT, metered=Metered.WRITE),
    ("POST", _COLLECTION + "/delete"): _row(About.COLLECTION, Action.DELETE, metered=Metered.WRITE),
    ("POST", _COLLECTION + "/get"): _row(About.COLLECTION, Action.GET, metered=Metered.READ),
    ("POST", _COLLECTION + "/query"): _row(About.COLLECTION, Action.QUERY, metered=Metered.READ),
    ("POST", _COLLECTION + "/search"): _row(About.COLLECTION, Action.SEARCH, metered=Metered.READ),
    ("GET", _COLLECTION + "/count"): _row(About.COLLECTION, Action.COUNT, metered=Metered.READ),
    ("POST", _COLLECTION + "/conditional/get"): _row(About.COLLECTION, Action.GET, metered=Metered.READ),
    ("POST", _COLLECTION + "/conditional/commit"): _row(
        About.COLLECTION,
        any_of=frozenset({Action.ADD, Action.UPDATE, Action.UPSERT, Action.DELETE}),
        metered=Metered.WRITE,
    ),
}
"""Rows of records. A delete by a filter needs `collection:get` as well, for its answer tells how many match; so does a
commit of what was read.
"""

_FUNCTIONS: Final = {
    ("POST", _COLLECTION + "/functions/attach"): _row(
        About.COLLECTION,
        Action.CREATE_ATTACHED_FUNCTION,
        Action.CREATE_COLLECTION,
        metered=Metered.CATALOG_WRITE,
        whole=True,
    ),
    ("GET", _COLLECTION + "/functions/{name}"): _row(
        About.COLLECTION, Action.GET_COLLECTION, metered=Metered.CATALOG_READ
    ),
    ("POST", _FUNCTION + "/detach"): _row(
        About.COLLECTION, Action.REMOVE_ATTACHED_FUNCTION, metered=Metered.CATALOG_WRITE
    ),
    ("POST", _FUNCTION + "/add_input"): _row(
        About.COLLECTION, Action.CREATE_ATTACHED_FUNCTION, metered=Metered.CATALOG_WRITE
    ),
}
"""Rows of functions. An output that the principal cannot see hides its function; deleting it along with the function
needs `collection:delete_collection`; a further input has to be one that the principal can see.
"""


_CONTROL_API: Final = "/polychrome/v1"
_KEYS: Final = _CONTROL_API + "/keys"
_KEY: Final = _KEYS + "/{key_id}"
_PLANS: Final = _CONTROL_API + "/plans"
_PLAN: Final = _PLANS + "/{plan}"
_OF_TENANT: Final = _CONTROL_API + "/tenants/{tenant}"

_CONTROL: Final = {
    ("POST", _KEYS): _row(About.OWN, Action.CREATE_KEY, metered=Metered.CONTROL),
    ("GET", _KEYS): _row(About.OWN, Action.LIST_KEYS, metered=Metered.CONTROL, filtered=True),
    ("GET", _KEY): _row(About.OWN, Action.LIST_KEYS, metered=Metered.CONTROL),
    ("POST", _KEY + "/rotate"): _row(About.OWN, Action.CREATE_KEY, metered=Metered.CONTROL),
    ("POST", _KEY + "/revoke"): _row(About.OWN, Action.REVOKE_KEY, metered=Metered.CONTROL),
    ("GET", _CONTROL_API + "/audit"): _row(About.OWN, Action.READ_AUDIT, metered=Metered.CONTROL, filtered=True),
    ("GET", _CONTROL_API + "/usage"): _row(About.OWN, Action.GET_USAGE, metered=Metered.CONTROL, filtered=True),
    ("GET", _CONTROL_API + "/tenants"): _row(About.SYSTEM, Action.LIST_TENANTS, metered=Metered.CONTROL),
    ("GET", _CONTROL_API + "/tenants/{tenant}"): _row(About.TENANT, Action.GET_TENANT, metered=Metered.CONTROL),
    ("DELETE", _CONTROL_API + "/tenants/{tenant}"): _row(About.SYSTEM, Action.DELETE_TENANT, metered=Metered.CONTROL),
}
"""Rows of what Chroma has no routes for. Nobody makes a key that may do more than its maker, or rotates one."""

_ERASURES: Final = _CONTROL_API + "/erasures"

_ERASURE_ROWS: Final = {
    ("POST", _ERASURES): _row(About.OWN, Action.ERASE, metered=Metered.CONTROL),
    ("GET", _ERASURES): _row(About.OWN, Action.ERASE, metered=Metered.CONTROL, filtered=True),
    ("GET", _ERASURES + "/{erasure_id}"): _row(About.OWN, Action.ERASE, metered=Metered.CONTROL),
}
"""Rows of erasures: of what lies within the sender's own scope."""

_PLAN_ROWS: Final = {
    ("GET", _PLANS): _row(About.SYSTEM, Action.GET_PLAN, metered=Metered.CONTROL),
    ("GET", _PLAN): _row(About.SYSTEM, Action.GET_PLAN, metered=Metered.CONTROL),
    ("PUT", _PLAN): _row(About.SYSTEM, Action.SET_PLAN, metered=Metered.CONTROL),
    ("DELETE", _PLAN): _row(About.SYSTEM, Action.SET_PLAN, metered=Metered.CONTROL),
    ("GET", _OF_TENANT + "/plan"): _row(About.TENANT, Action.GET_QUOTAS, metered=Metered.CONTROL),
    ("PUT", _OF_TENANT + "/plan"): _row(About.SYSTEM, Action.SET_QUOTAS, metered=Metered.CONTROL),
    ("GET", _OF_TENANT + "/quotas"): _row(About.TENANT, Action.GET_QUOTAS, metered=Metered.CONTROL, whole=True),
    ("PUT", _OF_TENANT + "/quotas"): _row(About.SYSTEM, Action.SET_QUOTAS, metered=Metered.CONTROL),
}
"""Rows of plans and of what tenants have of them: an operator sets them, a tenant's administrator sees its own."""


class AccessTable:
    """The rows by method and pattern of the path."""

    def __init__(self, rows: Mapping[tuple[str, str], Access]) -> None:
        self._rows = dict(rows)

    def row(self, method: str, pattern: str) -> Access:
        """The row of a route. Raises ValueError when it has none: what a new route needs is to be said here first."""
        found = self._rows.get((method, pattern))
        if found is None:
            raise ValueError(f"{method} {pattern} has no row in frontend/access/access_table.py")
        return found

    def __iter__(self) -> Iterator[tuple[str, str, Access]]:
        return ((method, pattern, access) for (method, pattern), access in self._rows.items())


_CHROMA: Final = {**_SYSTEM, **_PLACES, **_CATALOG, **_RECORDS, **_FUNCTIONS}
TABLE: Final = AccessTable({**_CHROMA, **_CONTROL, **_ERASURE_ROWS, **_PLAN_ROWS})
"""The rows of all routes that a frontend has."""
