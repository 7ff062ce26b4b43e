"""Routes of plans and of what tenants have of them, below `/polychrome/v1`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from frontend.http.responses import HttpResponse, json_response
from frontend.http.router import Route
from frontend.parse.body import read_json
from frontend.parse.shapes import shaped
from frontend.routes.paths import CONTROL
from frontend.routes.tenants import missing_tenant
from frontend.uuids import canonical_uuid
from shared.errors import InvalidArgument
from shared.tenancy.plan_store import missing_plan
from shared.tenancy.quotas import PlanName, QuotaPlan, Quotas, Resolved, TenantRecord, shown_quotas

if TYPE_CHECKING:
    from frontend.http.request import Request
    from shared.catalog.tenants import Tenants
    from shared.tenancy.plan_store import PlanStore

PLANS: Final = CONTROL + "/plans"
OF_TENANT: Final = CONTROL + "/tenants/{tenant}"


class PlanBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of PUT /plans/{plan}."""

    quotas: Quotas


class PlanChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of PUT /tenants/{tenant}/plan; null: the default plan alone."""

    plan: PlanName | None


class Overrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Body of PUT /tenants/{tenant}/quotas: the overrides of the collection with this id, else of the database of this
    name, else of the tenant; they replace those that it has.
    """

    quotas: Quotas
    database: str | None = None
    collection: str | None = None


class PlanRoutes:
    """Handlers of the routes."""

    def __init__(self, plans: PlanStore, tenants: Tenants) -> None:
        self._plans = plans
        self._tenants = tenants

    def routes(self) -> list[Route]:
        """The routes of this group."""
        return [
            Route("GET", PLANS, self.list_all),
            Route("GET", PLANS + "/{plan}", self.get),
            Route("PUT", PLANS + "/{plan}", self.put),
            Route("DELETE", PLANS + "/{plan}", self.delete),
            Route("GET", OF_TENANT + "/plan", self.plan_of),
            Route("PUT", OF_TENANT + "/plan", self.set_plan),
            Route("GET", OF_TENANT + "/quotas", self.quotas_of),
            Route("PUT", OF_TENANT + "/quotas", self.set_quotas),
        ]

    async def list_all(self, _request: Request) -> HttpResponse:
        """The plans, by name."""
        return json_response([_shown(plan) for plan in await self._plans.plans()])

    async def get(self, request: Request) -> HttpResponse:
        """A plan, by its name."""
        name = request.path_params["plan"]
        plan = await self._plans.find_plan(name)
        if plan is None:
            raise missing_plan(name)
        return json_response(_shown(plan))

    async def put(self, request: Request) -> HttpResponse:
        """Makes a plan, or replaces all of its quotas."""
        body = shaped(await read_json(request), PlanBody)
        plan = QuotaPlan(_checked_name(request.path_params["plan"]), body.quotas)
        live = await self._plans.put_plan(plan)
        return _changed(_shown(plan), live)

    async def delete(self, request: Request) -> HttpResponse:
        """Deletes a plan; 409 while a tenant has it."""
        name = request.path_params["plan"]
        return _changed({"name": name}, await self._plans.delete_plan(name))

    async def plan_of(self, request: Request) -> HttpResponse:
        """The name of a tenant's plan; null: the default plan alone."""
        name = await self._tenant(request)
        return json_response({"tenant": name, "plan": (await self._plans.find_tenant(name)).plan})

    async def set_plan(self, request: Request) -> HttpResponse:
        """Gives a tenant another plan."""
        body = shaped(await read_json(request), PlanChoice)
        name = await self._tenant(request)
        if body.plan is not None and await self._plans.find_plan(body.plan) is None:
            raise missing_plan(body.plan)
        live = await self._plans.change_tenant(name, lambda record: msgspec.structs.replace(record, plan=body.plan))
        return _changed({"tenant": name, "plan": body.plan}, live)

    async def quotas_of(self, request: Request) -> HttpResponse:
        """The quotas of a tenant as they hold, or of its database or collection that the parameters name; its plan, and
        its overrides.
        """
        name = await self._tenant(request)
        query = request.rel_url.query
        resolved = await self._plans.resolve(name)
        return json_response(_shown_resolved(resolved, query.get("database"), _checked_id(query.get("collection"))))

    async def set_quotas(self, request: Request) -> HttpResponse:
        """Replaces the overrides of a tenant, a database or a collection."""
        body = shaped(await read_json(request), Overrides)
        name, collection = await self._tenant(request), _checked_id(body.collection)

        def overridden(record: TenantRecord) -> TenantRecord:
            return record.overridden(body.quotas, body.database, collection)

        live = await self._plans.change_tenant(name, overridden)
        place = {"tenant": name, "database": body.database, "collection": collection}
        return _changed(place | {"quotas": shown_quotas(body.quotas)}, live)

    async def _tenant(self, request: Request) -> str:
        name = request.path_params["tenant"]
        if await self._tenants.get(name) is None:
            raise missing_tenant(name)
        return name


def _checked_name(text: str) -> str:
    """The name of a plan. Raises InvalidArgument."""
    try:
        return msgspec.convert(text, PlanName)
    except msgspec.ValidationError as error:
        raise InvalidArgument(
            "A plan's name has 1 to 64 of a-z, 0-9, - and _, and begins with one of a-z, 0-9"
        ) from error


def _checked_id(text: str | None) -> str | None:
    """The id of a collection in its usual spelling. Raises InvalidArgument."""
    collection = None if text is None else canonical_uuid(text)
    if collection is None and text is not None:
        raise InvalidArgument("Collection ID is not a valid UUIDv4")
    return collection


def _shown(plan: QuotaPlan) -> dict[str, Any]:
    return {"name": plan.name, "quotas": shown_quotas(plan.quotas)}


def _shown_resolved(resolved: Resolved, database: str | None, collection: str | None) -> dict[str, Any]:
    record = resolved.record
    return {
        "tenant": record.tenant,
        "plan": record.plan,
        "database": database,
        "collection": collection,
        "quotas": shown_quotas(resolved.effective(database, collection)),
        "overrides": shown_quotas(record.quotas),
        "databases": {name: shown_quotas(quotas) for name, quotas in record.databases.items()},
        "collections": {name: shown_quotas(quotas) for name, quotas in record.collections.items()},
    }


def _changed(shown: dict[str, Any], live: bool) -> HttpResponse:
    """The answer to a change. `live` false (202): it holds, and all frontends will know once Redis is back."""
    return json_response(shown | {"live": live}, 200 if live else 202)
