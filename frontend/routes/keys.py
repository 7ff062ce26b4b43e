"""Routes of API keys, below `/polychrome/v1`: create, list, show, rotate, revoke.

Nobody gets more by them than the sender has: a key is made, rotated or seen only when its scope lies within the
sender's, and made or rotated only with actions that the sender has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec

from frontend.access.authorization import denied
from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.shapes import shaped
from frontend.routes.paths import CONTROL
from frontend.routes.tenants import missing_tenant
from shared.errors import InvalidArgument, PermissionDenied
from shared.tenancy.actions import Action, Role
from shared.tenancy.api_keys import KeyHash, KeyRecord, Name, Names, NewKey, TenantName, is_key_id
from shared.tenancy.key_store import OVERLAP_S_MAX, missing_key

if TYPE_CHECKING:
    from frontend.http.request import Request
    from shared.catalog.tenants import Tenants
    from shared.process.clock import Clock
    from shared.tenancy.key_store import KeyStore, Made
    from shared.tenancy.principal import Principal

KEYS: Final = CONTROL + "/keys"
OVERLAP_S: Final = 24 * 3600.0
"""Time for which a key that is rotated holds beside its successor unless the request says otherwise, in seconds."""
LIFE_S_MAX: Final = 100 * 366 * 24 * 3600.0


class KeyCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Body of POST /keys. A member that is not known is refused: a restriction that was mistyped would be none."""

    name: Name = ""
    tenant: TenantName | None
    databases: Names | None = None
    collections: Names | None = None
    role: Role | None = None
    actions: list[Action] | None = None
    expires_in_s: Annotated[float, msgspec.Meta(gt=0, le=LIFE_S_MAX)] | None = None


class KeyRotate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of POST /keys/{key_id}/rotate."""

    overlap_s: Annotated[float, msgspec.Meta(ge=0, le=OVERLAP_S_MAX)] = OVERLAP_S


class KeyRoutes:
    """Handlers of the key routes."""

    def __init__(self, key_store: KeyStore, tenants: Tenants, clock: Clock) -> None:
        self._key_store = key_store
        self._tenants = tenants
        self._clock = clock

    def routes(self) -> list[Route]:
        """The routes of this group."""
        return [
            Route("POST", KEYS, self.create),
            Route("GET", KEYS, self.list_all),
            Route("GET", KEYS + "/{key_id}", self.get),
            Route("POST", KEYS + "/{key_id}/rotate", self.rotate),
            Route("POST", KEYS + "/{key_id}/revoke", self.revoke),
        ]

    async def create(self, request: Request) -> HttpResponse:
        """Makes a key. The answer is the only place where its text ever is."""
        body = shaped(await read_json(request), KeyCreate)
        principal, now_s = request.principal, self._clock.now()

        def record_of(key: NewKey) -> KeyRecord:
            return KeyRecord(
                id=key.id,
                name=body.name,
                tenant=body.tenant,
                databases=body.databases,
                collections=body.collections,
                role=body.role,
                actions=body.actions,
                created_s=now_s,
                creator=principal.id,
                expires_s=None if body.expires_in_s is None else now_s + body.expires_in_s,
                hashes=[KeyHash(key.sha256)],
            )

        def allowed(key: NewKey) -> KeyRecord:
            record = record_of(key)
            _check_within(principal, record)
            return record

        if body.tenant is not None and (not principal.scope.has_tenant(body.tenant)):
            raise missing_tenant(body.tenant)
        request.subject_tenant = body.tenant or ""
        if body.tenant is not None and await self._tenants.get(body.tenant) is None:
            raise missing_tenant(body.tenant)
        made = await self._key_store.create(allowed)
        request.subject = made.record.id
        return _made(made, None, 201)

    async def list_all(self, request: Request) -> HttpResponse:
        """The keys within the sender's scope, the oldest first; with the parameter `tenant`, of this tenant alone."""
        tenant = request.rel_url.query.get("tenant")
        scope = request.principal.scope

        def visible(record: KeyRecord) -> bool:
            return record.scope().within(scope) and tenant in (None, record.tenant)

        records = await self._key_store.all(visible)
        used = await self._key_store.last_used([record.id for record in records])
        return json_response([shown_key(record, used[record.id]) for record in records])

    async def get(self, request: Request) -> HttpResponse:
        """A key, without its text."""
        record = await self._visible(request)
        used = await self._key_store.last_used([record.id])
        return json_response(shown_key(record, used[record.id]))

    async def rotate(self, request: Request) -> HttpResponse:
        """Another text for the key; the present one holds for a while beside it."""
        body = shaped(await read_json(request), KeyRotate)
        record = await self._visible(request)
        principal = request.principal
        made = await self._key_store.rotate(record.id, body.overlap_s, lambda found: _check_within(principal, found))
        return await self._changed(made)

    async def revoke(self, request: Request) -> HttpResponse:
        """Revokes the key for good. Whatever the body holds is ignored."""
        record = await self._visible(request)
        principal = request.principal
        made = await self._key_store.revoke(record.id, lambda found: _check_visible(principal, found))
        return await self._changed(made)

    async def _visible(self, request: Request) -> KeyRecord:
        """The key in the path. Raises NotFound, also for one that is not within the sender's scope."""
        key_id = request.path_params["key_id"]
        if not is_key_id(key_id):
            raise missing_key(key_id)
        record = await self._key_store.get(key_id)
        _check_visible(request.principal, record)
        request.subject_tenant = record.tenant or ""
        return record

    async def _changed(self, made: Made) -> HttpResponse:
        used = await self._key_store.last_used([made.record.id]) if made.live else {}
        return _made(made, used.get(made.record.id), 200)


def _check_visible(principal: Principal, record: KeyRecord) -> None:
    if not record.scope().within(principal.scope):
        raise missing_key(record.id)


def _check_within(principal: Principal, record: KeyRecord) -> None:
    """Raises PermissionDenied for a key that may do more than the principal."""
    if not record.scope().within(principal.scope):
        raise PermissionDenied("Permission denied: the key would have more in its scope than its maker")
    beyond = record.allowed() - principal.actions
    if beyond:
        raise denied(min(beyond))
    if record.role is Role.SYSTEM and record.tenant is not None:
        raise InvalidArgument("The role `system` is that of keys for every tenant; within one it is `admin`")


def shown_key(record: KeyRecord, used_s: float | None) -> dict[str, Any]:
    """A key as clients see it: nothing by which it could be guessed or compared."""
    shown: dict[str, Any] = msgspec.to_builtins(record)
    del shown["hashes"]
    older = record.hashes[0].until_s if len(record.hashes) > 1 else None
    return shown | {"used_s": used_s, "older_until_s": older}


def _made(made: Made, used_s: float | None, status: int) -> HttpResponse:
    """The answer to a change. `live` false (202): it holds, and all frontends will know once Redis is back."""
    text = {} if made.text is None else {"key": made.text}
    shown = text | shown_key(made.record, used_s) | {"live": made.live}
    return json_response(shown, status if made.live else 202)
