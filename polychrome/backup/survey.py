"""The collections of a running cluster, before any of them is read: which can be, and which cannot."""

from __future__ import annotations

from dataclasses import dataclass

from shared.catalog import Catalog, Database


@dataclass(frozen=True, slots=True)
class Place:
    """A collection and the database that it is in. `problem` says why it cannot be read, None where it can."""

    within: Database
    id: str
    name: str
    problem: str | None = None

    @property
    def tenant(self) -> str:
        """The name of its tenant."""
        return self.within.tenant

    @property
    def database(self) -> str:
        """The name of its database."""
        return self.within.name

    @property
    def path(self) -> str:
        """Tenant, database and name."""
        return f"{self.tenant}/{self.database}/{self.name}"


async def places_in(catalog: Catalog, database: Database) -> list[Place]:
    """The collections of a database, those that cannot be read last. Raises Unavailable."""
    names = await catalog.collections.names(database)
    collections, unreadable = await catalog.collections.survey(database)
    places = [Place(database, collection.id, collection.name) for collection in collections]
    return places + [Place(database, each, names.get(each, each), problem) for each, problem in unreadable.items()]
