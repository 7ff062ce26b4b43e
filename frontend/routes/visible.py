"""Collections and databases as a principal sees them: lists without what is outside of its scope, and names resolved
among what is in it.

A principal that is bound to some collections knows them by their ids. A name is looked for among these alone, so that
whether another collection has it makes no difference, neither to the answer nor to the time that it takes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.access.authorization import stand_in_for_name
from shared.errors import PermissionDenied

if TYPE_CHECKING:
    from shared.catalog import Collection, Database
    from shared.catalog.collections import Collections
    from shared.catalog.databases import Databases
    from shared.tenancy.principal import Principal


async def named_collection(
    collections: Collections, principal: Principal, database: Database, name: str
) -> Collection | None:
    """The collection of the database that has this name, None when the principal sees none."""
    ids = principal.scope.collections
    if ids is None:
        return await collections.get(database, name)
    found = [each for each in await collections.some(database, ids) if each.name == name]
    return found[0] if found else await collections.get(database, stand_in_for_name())


async def listed_collections(
    collections: Collections, principal: Principal, database: Database, limit: int | None, offset: int
) -> list[Collection]:
    """A page of the collections that the principal sees, in the order of their creation."""
    ids = principal.scope.collections
    if ids is None:
        return await collections.of_database(database, limit, offset)
    found = await collections.some(database, ids)
    return found[offset:] if limit is None else found[offset : offset + limit]


async def counted_collections(collections: Collections, principal: Principal, database: Database) -> int:
    """The number of collections that the principal sees."""
    ids = principal.scope.collections
    return await collections.count(database) if ids is None else len(await collections.some(database, ids))


async def listed_databases(
    databases: Databases, principal: Principal, tenant: str, limit: int | None, offset: int
) -> list[Database]:
    """A page of the tenant's databases that the principal sees, in the order of their creation."""
    names = principal.scope.databases
    if names is None:
        return await databases.of_tenant(tenant, limit, offset)
    found = await databases.some(tenant, names)
    return found[offset:] if limit is None else found[offset : offset + limit]


def sees(principal: Principal, collection: Collection) -> bool:
    """Whether a collection that was found in another way than by the path is in the principal's scope."""
    return principal.scope.has_collection(collection.tenant, collection.database, collection.id)


def check_new_name(principal: Principal) -> None:
    """Raises PermissionDenied for a principal that is bound to some collections: a name that it takes in the database
    would tell it whether another collection has it, and a new collection would not be among its own.
    """
    if not principal.scope.whole_databases:
        raise PermissionDenied("Permission denied: the scope has only some collections of the database")


def check_new_database(principal: Principal, name: str) -> None:
    """Raises PermissionDenied for a database that would be outside of the principal's scope."""
    names = principal.scope.databases
    if not principal.scope.whole_databases or (names is not None and name not in names):
        raise PermissionDenied("Permission denied: the scope does not have this database")
