"""Authorization: whether a principal may do what a route does to what its path names. Pure; it makes no look-up.

There are three outcomes:

1. *Allowed*.
2. *Hidden*: the path names a tenant, database or collection outside of the principal's scope. The request is then
   answered as one for a name that does not exist is: the handler gets a name that cannot exist in the place of the
   hidden one, looks it up as it would any other, and says so in the words that it has for that (`Hidden.unveil` puts
   the client's own name back into them). So what is hidden cannot be told from what is missing, nor timed.
3. *Denied*: what the path names is in the scope, and the principal has not the action.

A scope says by itself what is outside of it, so that nothing hidden is ever looked up. Only names of collections have
to be resolved first: handlers do that among the collections of the scope.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from frontend.access.access_table import About, Access
from frontend.uuids import canonical_uuid
from shared.errors import PermissionDenied
from shared.tenancy.actions import Action
from shared.tenancy.principal import Principal, Scope

_NOWHERE: Final = f"nowhere-{secrets.token_hex(16)}"
"""The name of no tenant and no database; drawn by each process, so that nobody can create them."""
_NOTHING: Final = str(uuid.uuid4())
"""The id of no collection: ids are drawn by servers."""
_TOPOLOGY: Final = "+"
_DATABASE_NAME_LENGTH_MIN: Final = 3

# Members of an enumeration are slow to look up, and each request does.
_SYSTEM: Final = About.SYSTEM
_TENANT: Final = About.TENANT
_COLLECTION: Final = About.COLLECTION


@dataclass(frozen=True, slots=True)
class Hidden:
    """A path parameter that names something outside of the scope, as the client has sent it (`shown`), and what its
    handler gets instead.
    """

    param: str
    shown: str
    stand_in: str

    def unveil(self, message: str) -> str:
        """The message of an error, with the name that the client has sent."""
        return message.replace(self.stand_in, self.shown)


def judge(principal: Principal, access: Access, path_params: Mapping[str, str]) -> Hidden | None:
    """None when the request is allowed, else what of its path is hidden. Raises PermissionDenied.

    `path_params`: the decoded parameters of a route with this row.
    """
    scope = principal.scope
    if access.about >= _TENANT:
        hidden = _outside(scope, access, path_params)
        if hidden is not None:
            return hidden
    if not access.actions <= principal.actions:
        raise denied(*access.actions - principal.actions)
    if access.any_of and access.any_of.isdisjoint(principal.actions):
        raise denied(*access.any_of)
    if access.about is _SYSTEM and not scope.everything:
        raise PermissionDenied("Permission denied: not within the scope of one tenant")
    if access.whole and not (scope.whole_tenants if access.about is _TENANT else scope.whole_databases):
        raise PermissionDenied("Permission denied: the scope has only a part of it")
    return None


def require(principal: Principal, *actions: Action) -> None:
    """Raises PermissionDenied unless the principal has all of these actions: for what only the body tells."""
    if not principal.actions.issuperset(actions):
        raise denied(*set(actions) - principal.actions)


def denied(*missing: Action) -> PermissionDenied:
    """The error of a principal without these actions."""
    return PermissionDenied(f"Permission denied: {' or '.join(sorted(missing))} is needed")


def stand_in_for_name() -> str:
    """The name of a collection that cannot exist, to be looked up in the place of a hidden one."""
    return _NOWHERE


def stand_in_for_id() -> str:
    """The id of a collection that cannot exist, to be looked up in the place of a hidden one."""
    return _NOTHING


def _outside(scope: Scope, access: Access, path_params: Mapping[str, str]) -> Hidden | None:
    """The first of tenant, database and collection in the path that is outside of the scope."""
    tenant = path_params["tenant"]
    if scope.tenant is not None and tenant != scope.tenant:
        return Hidden("tenant", tenant, _NOWHERE)
    if access.about is _TENANT:
        return None
    if scope.databases is not None and (database := path_params["database"]) not in scope.databases:
        return _hidden_database(database)
    if scope.collections is None or access.about is not _COLLECTION:
        return None
    collection_id = path_params[access.id_param]
    if collection_id in scope.collections:
        return None
    canonical = canonical_uuid(collection_id)
    if canonical is None:
        return Hidden(access.id_param, collection_id, collection_id)
    return None if canonical in scope.collections else Hidden(access.id_param, canonical, _NOTHING)


def _hidden_database(name: str) -> Hidden:
    """A database outside of the scope. What is wrong with its name by itself stays wrong with its stand-in."""
    if len(name) < _DATABASE_NAME_LENGTH_MIN:
        return Hidden("database", name, name)
    return Hidden("database", name, f"{_NOWHERE}{_TOPOLOGY}{_NOWHERE}" if _TOPOLOGY in name else _NOWHERE)
