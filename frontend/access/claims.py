"""From the claims of a verified token to a principal, by the operator's configuration. Pure.

Nothing is a default that widens: a token without a claim that the configuration names is not valid, and one that has no
role and no actions that it knows may do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from shared.errors import Unauthenticated
from shared.tenancy.actions import ACTIONS_OF, PLACE_ACTIONS, Action, Role
from shared.tenancy.api_keys import SCOPE_NAMES_MAX
from shared.tenancy.principal import Principal, Scope

SUBJECT_LENGTH_MAX: Final = 256

ClaimPath = str | list[str]
"""The name of a claim, or the names on the way to a nested one."""


class ClaimMap(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The claims that say what a token is for. `tenant` has the tenant's name, unless all tokens are of `fixed_tenant`.
    `databases` and `collections` (ids) have a text or a list; without them in the configuration, a token is for all of
    them. `role` has a text or a list, which `roles` translates (without it: the names of roles themselves); `actions`
    has a list of actions or a text of them with blanks between. At least one of `role` and `actions` is configured.
    """

    tenant: ClaimPath | None = None
    fixed_tenant: str | None = None
    databases: ClaimPath | None = None
    collections: ClaimPath | None = None
    role: ClaimPath | None = None
    roles: dict[str, Role] | None = None
    actions: ClaimPath | None = None


_CLAIM_MAP: Final = msgspec.json.Decoder(ClaimMap)


def parse_claim_map(text: str) -> ClaimMap | None:
    """The configuration, None of an empty text. Raises ValueError with a sentence."""
    if not text.strip():
        return None
    try:
        mapping = _CLAIM_MAP.decode(text.encode())
    except msgspec.MsgspecError as error:
        raise ValueError(f"expected a JSON object: {error}") from error
    if (mapping.tenant is None) == (mapping.fixed_tenant is None):
        raise ValueError("expected either `tenant`, a claim, or `fixed_tenant`, a tenant")
    if mapping.role is None and mapping.actions is None:
        raise ValueError("expected `role` or `actions`, or both: without them a token may do nothing")
    if mapping.collections is not None and mapping.databases is None:
        raise ValueError("`collections` without `databases`")
    return mapping


def principal_of(claims: Mapping[str, Any], mapping: ClaimMap) -> Principal:
    """The principal of a token with these claims, which are verified. Raises Unauthenticated, naming the claim."""
    subject = claims.get("sub")
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_LENGTH_MAX:
        raise Unauthenticated("The token's claim `sub` is no name")
    tenant = mapping.fixed_tenant
    if mapping.tenant is not None:
        tenant = _claim(claims, mapping.tenant)
        if not isinstance(tenant, str) or not tenant:
            raise _bad(mapping.tenant)
    assert tenant is not None
    databases = None if mapping.databases is None else _names(claims, mapping.databases)
    collections = None if mapping.collections is None else _names(claims, mapping.collections)
    actions = _actions(claims, mapping)
    if not actions:
        raise Unauthenticated("The token has no role and no action that is known here")
    return Principal(subject, Scope(tenant, databases, collections), actions | PLACE_ACTIONS)


def _actions(claims: Mapping[str, Any], mapping: ClaimMap) -> frozenset[Action]:
    found: frozenset[Action] = frozenset()
    if mapping.role is not None:
        known = mapping.roles if mapping.roles is not None else {role.value: role for role in Role}
        for name in _texts(_claim(claims, mapping.role)):
            if name in known:
                found |= ACTIONS_OF[known[name]]
    if mapping.actions is not None:
        known_actions = {action.value: action for action in Action}
        named = {known_actions[word] for text in _texts(_claim(claims, mapping.actions)) for word in text.split()
                 if word in known_actions}  # fmt: skip
        found |= frozenset(named)
    return found


def _names(claims: Mapping[str, Any], path: ClaimPath) -> frozenset[str]:
    """The names in a claim, of which there is at least one."""
    names = _texts(_claim(claims, path))
    if not names or len(names) > SCOPE_NAMES_MAX:
        raise _bad(path)
    return frozenset(names)


def _claim(claims: Mapping[str, Any], path: ClaimPath) -> Any:
    value: Any = claims
    for name in [path] if isinstance(path, str) else path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _texts(value: Any) -> list[str]:
    """A text or a list of texts as a list; of anything else nothing."""
    if isinstance(value, str):
        return [value] if value else []
    return value if isinstance(value, list) and all(isinstance(each, str) and each for each in value) else []


def _bad(path: ClaimPath) -> Unauthenticated:
    name = path if isinstance(path, str) else ".".join(path)
    return Unauthenticated(f"The token's claim `{name}` is missing, or does not say what it should")
