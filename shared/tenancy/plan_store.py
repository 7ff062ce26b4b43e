"""The plans of a cluster and what its tenants have of them: changed as control records, and looked up by frontends."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from shared.errors import AlreadyExists, Corrupt, InvalidArgument, NotFound
from shared.process.telemetry import get_logger
from shared.tenancy.control_model import ControlKind
from shared.tenancy.control_records import ControlRecords
from shared.tenancy.quotas import (
    DEFAULT_PLAN,
    QuotaPlan,
    Quotas,
    Resolved,
    TenantRecord,
    check_quotas,
    decode_plan,
    decode_tenant,
)

NO_PLAN: Final = QuotaPlan(DEFAULT_PLAN)

log = get_logger(__name__)


def missing_plan(name: str) -> NotFound:
    """The 404 of a plan that is not there."""
    return NotFound(f"Plan [{name}] does not exist")


class PlanStore:
    """Plans over the control records. Everything raises Unavailable while the bucket (for changes) or Redis is away."""

    def __init__(self, records: ControlRecords) -> None:
        self._records = records

    # For frontends that admit requests

    async def generation(self) -> str:
        """The word that is another one whenever a record has changed."""
        return await self._records.generation()

    async def find_plan(self, name: str) -> QuotaPlan | None:
        """The plan as frontends go by it; None when there is none, or none that can be read."""
        found = await self._records.look_up(ControlKind.PLANS, name)
        if found is None or found.content is None:
            return None
        try:
            return decode_plan(found.content)
        except ValueError as error:
            log.error("plan_not_read", plan=name, message=str(error))  # noqa: TRY400 (said, and not a fault of the code)
            return None

    async def find_tenant(self, tenant: str) -> TenantRecord:
        """The tenant's record as frontends go by it: an empty one when there is none, or none that can be read."""
        found = await self._records.look_up(ControlKind.TENANTS, tenant)
        if found is None or found.content is None:
            return TenantRecord(tenant)
        try:
            return decode_tenant(found.content)
        except ValueError as error:
            log.error("tenant_record_not_read", tenant_record=tenant, message=str(error))  # noqa: TRY400 (as above)
            return TenantRecord(tenant)

    async def resolve(self, tenant: str) -> Resolved:
        """The quotas of the tenant, as Redis has them now."""
        record = await self.find_tenant(tenant)
        default = await self.find_plan(DEFAULT_PLAN) or NO_PLAN
        plan = NO_PLAN if record.plan is None else await self.find_plan(record.plan) or NO_PLAN
        return Resolved(default.quotas, plan.quotas, record)

    async def any(self) -> bool:
        """Whether there is any record of a plan or a tenant."""
        return any([await self._records.count(kind) for kind in (ControlKind.PLANS, ControlKind.TENANTS)])

    # For operators

    async def plans(self) -> list[QuotaPlan]:
        """All plans, by name. Those that cannot be read are left out."""
        names = sorted({record.name async for record in self._records.all(ControlKind.PLANS)})
        return [plan for name in names if (plan := await self.find_plan(name)) is not None]

    async def put_plan(self, plan: QuotaPlan) -> bool:
        """Makes the plan, or replaces it; whether frontends know within two seconds. Raises InvalidArgument."""
        _check(plan.quotas)
        body = msgspec.json.encode(plan)
        return (await self._records.change(ControlKind.PLANS, plan.name, lambda _: body)).live

    async def delete_plan(self, name: str) -> bool:
        """Deletes the plan; whether frontends know within two seconds. Raises NotFound, and AlreadyExists while a
        tenant has it.
        """
        async for record in self._tenants():
            if record.plan == name:
                raise AlreadyExists(f"Plan [{name}] is that of tenant [{record.tenant}]")

        def deleted(body: bytes | None) -> None:
            if body is None:
                raise missing_plan(name)

        return (await self._records.change(ControlKind.PLANS, name, deleted)).live

    async def change_tenant(self, tenant: str, change: Callable[[TenantRecord], TenantRecord]) -> bool:
        """Changes the tenant's record; whether frontends know within two seconds. Raises InvalidArgument, and NotFound
        for a plan that does not exist.
        """

        def changed(body: bytes | None) -> bytes | None:
            record = TenantRecord(tenant) if body is None else _readable(tenant, body)
            try:
                after = change(record)
            except ValueError as error:
                raise InvalidArgument(str(error)) from error
            for quotas in (after.quotas, *after.databases.values(), *after.collections.values()):
                _check(quotas)
            return None if after.empty else msgspec.json.encode(after)

        return (await self._records.change(ControlKind.TENANTS, tenant, changed)).live

    async def forget_tenant(self, tenant: str) -> bool:
        """Deletes the record of a tenant that is deleted, so that another one of its name begins anew; whether
        frontends know within two seconds.
        """
        if await self._records.look_up(ControlKind.TENANTS, tenant) is None:
            return True
        return (await self._records.change(ControlKind.TENANTS, tenant, lambda _: None)).live

    async def _tenants(self) -> AsyncIterator[TenantRecord]:
        async for record in self._records.all(ControlKind.TENANTS):
            if record.content is not None:
                yield _readable(record.name, record.content)


def _check(quotas: Quotas) -> None:
    try:
        check_quotas(quotas)
    except ValueError as error:
        raise InvalidArgument(str(error)) from error


def _readable(tenant: str, body: bytes) -> TenantRecord:
    try:
        return decode_tenant(body)
    except ValueError as error:
        raise Corrupt(f"the record of tenant {tenant} cannot be read: {error}") from error
