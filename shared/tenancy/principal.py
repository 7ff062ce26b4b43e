"""Principals: who a request is from, once its credential was verified, and what they may do where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.tenancy.actions import SYSTEM_ACTIONS, Action


@dataclass(frozen=True, slots=True)
class Scope:
    """A part of what is stored: one tenant, of it some databases, of these some collections; None means all of them.
    Tenants and databases go by their names, collections by their ids: a name is free for another one once its
    collection was deleted.
    """

    tenant: str | None = None
    databases: frozenset[str] | None = None
    collections: frozenset[str] | None = None

    def has_tenant(self, tenant: str) -> bool:
        """Whether the tenant is in the scope, with all or with some of what it has."""
        return self.tenant is None or self.tenant == tenant

    def has_database(self, tenant: str, database: str) -> bool:
        """Whether the tenant's database is in the scope, with all or with some of its collections."""
        return self.has_tenant(tenant) and (self.databases is None or database in self.databases)

    def has_collection(self, tenant: str, database: str, collection_id: str) -> bool:
        """Whether the collection with this id (in its usual spelling) is in the scope, if it lies in this database."""
        return self.has_database(tenant, database) and (self.collections is None or collection_id in self.collections)

    @property
    def whole_databases(self) -> bool:
        """Whether all collections of its databases are in the scope, those included that are not made yet."""
        return self.collections is None

    @property
    def whole_tenants(self) -> bool:
        """Whether all databases of its tenants are in the scope, with all of their collections."""
        return self.collections is None and self.databases is None

    @property
    def everything(self) -> bool:
        """Whether all tenants are in the scope."""
        return self.whole_tenants and self.tenant is None

    def within(self, other: Scope) -> bool:
        """Whether the other scope has all that this one has."""
        return (
            (other.tenant is None or self.tenant == other.tenant)
            and (other.databases is None or (self.databases is not None and self.databases <= other.databases))
            and (other.collections is None or (self.collections is not None and self.collections <= other.collections))
        )


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request.

    `id` is shown to clients as `user_id`; it is the id of a key, or the subject of a token. `key_id` is the id of the
    API key's record behind it, None without one.
    """

    id: str
    scope: Scope
    actions: frozenset[Action]
    key_id: str | None = None

    def may(self, *actions: Action) -> bool:
        """Whether all of these actions are allowed, at places that are in the scope."""
        return self.actions.issuperset(actions)

    @property
    def tenant(self) -> str | None:
        """The only tenant that the principal has to do with; None for one that is not bound to a tenant."""
        return self.scope.tenant


ANONYMOUS: Final = Principal("", Scope(), SYSTEM_ACTIONS)
"""Everybody, while authentication is off."""
