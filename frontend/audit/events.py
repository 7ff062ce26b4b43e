"""The audit event of a request. Pure.

Nothing of a body gets into it: who comes from the credential, where from the path, and what from the route's row in the
access table. Of what a request has made, handlers name the name or the id (`Request.subject`).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Final

from frontend.access.access_table import PUBLIC, About, Access, Metered
from frontend.access.authenticator import BOOTSTRAP
from frontend.access.credentials import claimed_key_id
from frontend.audit.settings import ALL
from frontend.http.router import METHOD_ORDER
from shared.tenancy.audit import Actor, ActorKind, AuditOutcome, Event, moment_of, shown_text
from shared.tenancy.principal import ANONYMOUS, Principal

if TYPE_CHECKING:
    from frontend.http.request import Request

# Members of an enumeration are slow to look up, and each request does.
_CONTROL: Final = Metered.CONTROL
_CATALOG_WRITE: Final = Metered.CATALOG_WRITE
_ALLOWED: Final = AuditOutcome.ALLOWED
_UNAUTHENTICATED_STATUS: Final = 401
_DENIED_STATUS: Final = 403
_MISSING_STATUS: Final = 404
_PLACES: Final = frozenset({"tenant", "database"})


def is_wanted(access: Access, outcome: AuditOutcome, mode: str) -> bool:
    """Whether a request to a route with this row leaves an event: denials and the control plane always do (what changes
    tenants, databases, collections and keys), what anyone may ask for never, everything else by choice.
    """
    if outcome is not _ALLOWED or access.metered is _CONTROL or access.metered is _CATALOG_WRITE:
        return True
    return mode == ALL and access is not PUBLIC


def outcome_of(request: Request, status: int, *, authenticates: bool) -> AuditOutcome:
    """The decision about a request, by what is known of it once it was answered with this status. `authenticates`: the
    frontend asks for credentials, so that a sender without a principal had none that holds (or nobody could tell).
    """
    if request.hidden is not None:
        return AuditOutcome.HIDDEN
    if status == _UNAUTHENTICATED_STATUS or (
        authenticates and request.principal is ANONYMOUS and request.access is not PUBLIC
    ):
        return AuditOutcome.UNAUTHENTICATED
    if status == _DENIED_STATUS:
        return AuditOutcome.DENIED
    if status == _MISSING_STATUS and _resolved_within_scope(request.access.about, request.principal):
        return AuditOutcome.HIDDEN
    return _ALLOWED


def _resolved_within_scope(about: About, principal: Principal) -> bool:
    """Whether a handler resolves a name among what the principal sees, so that what is missing may be hidden."""
    scope = principal.scope
    if about is About.NAMED_COLLECTION:
        return not scope.whole_databases
    return about in (About.CRN, About.OWN) and not scope.everything


def event_of(
    request: Request, actor: Actor, status: int, outcome: AuditOutcome, time_s: float, request_id: str
) -> Event:
    """The event of a request that was answered with this status, 0 for none."""
    params = dict(request.path_params)
    if request.hidden is not None:
        params[request.hidden.param] = request.hidden.shown
    collection = params.pop(request.access.id_param, None) or ""
    if not collection and request.access.about is About.NAMED_COLLECTION:
        collection = params.pop("name", "")
    rest = [value for name, value in params.items() if name not in _PLACES]
    subject = request.subject or (rest[0] if rest else "")
    return Event(
        time=moment_of(time_s),
        actor=actor,
        address=shown_text(request.remote or ""),
        method=request.method if request.method in METHOD_ORDER else "other",
        route=request.pattern,
        actions=_actions_of(request.access),
        tenant=shown_text(params.get("tenant", request.subject_tenant)),
        database=shown_text(params.get("database", "")),
        collection=shown_text(collection),
        subject=shown_text(subject),
        outcome=outcome,
        status=status,
        request=shown_text(request_id),
    )


def folded_event(like: Event, time_s: float, count: int, *, mixed: bool) -> Event:
    """The event that stands for so many refusals like this one; `mixed`: of several senders."""
    actor, address = (Actor(ActorKind.UNKNOWN), "") if mixed else (like.actor, like.address)
    return Event(time=moment_of(time_s), actor=actor, address=address, route="*", outcome=like.outcome, count=count)


def actor_of(request: Request, *, authenticates: bool) -> Actor:
    """The sender, as an event has it."""
    if request.principal is not ANONYMOUS:
        return _actor_of(request.principal)
    return Actor(ActorKind.UNKNOWN, claimed_key_id(request.headers) or "") if authenticates else _ANONYMOUS


_ANONYMOUS: Final = Actor(ActorKind.ANONYMOUS)


@functools.lru_cache(maxsize=1024)
def _actor_of(principal: Principal) -> Actor:
    if principal is BOOTSTRAP:
        return Actor(ActorKind.BOOTSTRAP)
    tenant = shown_text(principal.tenant or "")
    if principal.key_id is None:
        return Actor(ActorKind.TOKEN, shown_text(principal.id), tenant=tenant)
    if principal.key_id == principal.id:
        return Actor(ActorKind.KEY, principal.id, tenant=tenant)
    return Actor(ActorKind.USER, shown_text(principal.id), principal.key_id, tenant)


@functools.cache
def _actions_of(access: Access) -> tuple[str, ...]:
    return tuple(sorted(access.actions | access.any_of))
