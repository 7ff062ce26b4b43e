"""A model of the catalog: what must be there after a loss, what must not, and what may be either way."""

from __future__ import annotations

import random
from dataclasses import dataclass

from shared.catalog import Catalog, Collection, Database, NewCollection
from shared.errors import AlreadyExists, NotFound, Unavailable
from tests.shared.log.appending import FIXED

NAMES = ("a", "b", "c", "d")
DATABASES = ("x", "y")
TENANT = "default_tenant"


@dataclass(frozen=True)
class Row:
    """A collection, as it was acknowledged."""

    id: str
    name: str
    value: int


class CatalogModel:
    """One client that makes changes by chance, one at a time. A change whose outcome is unknown leaves the state before
    it and the one after it; what is found after the next loss decides.
    """

    def __init__(self, catalog: Catalog, chance: random.Random) -> None:
        self.acknowledged = 0
        self._catalog = catalog
        self._chance = chance
        self._rows: dict[str, dict[str, Row] | None] = dict.fromkeys(DATABASES)
        self._doubt: str | None = None
        self._count = 0
        self._ids_deleted: set[str] = set()

    async def change(self) -> None:
        """One change; none while the outcome of the last one is unknown."""
        if self._doubt is not None:
            return
        name = self._chance.choice(DATABASES)
        try:
            await self._change(name)
            self.acknowledged += 1
        except Unavailable:
            self._doubt = name

    async def _change(self, database_name: str) -> None:
        rows = self._rows[database_name]
        if rows is None:
            await self._catalog.databases.create(TENANT, database_name)
            self._rows[database_name] = {}
            return
        action = self._chance.choice(("create", "create", "create", "rename", "update", "delete", "drop"))
        database = await self._catalog.databases.get(TENANT, database_name)
        assert database is not None, f"{database_name} was acknowledged"
        if action == "drop":
            if self._chance.random() < 0.3:
                assert await self._catalog.databases.delete(TENANT, database_name)
                self._ids_deleted |= {row.id for row in rows.values()}
                self._rows[database_name] = None
        elif action == "create":
            await self._create(database, rows)
        elif rows:
            await self._of_one(database, rows, action)

    async def _create(self, database: Database, rows: dict[str, Row]) -> None:
        name = self._chance.choice(NAMES)
        self._count += 1
        new = NewCollection(name, {"value": self._count}, {}, {}, FIXED)
        try:
            made, created = await self._catalog.collections.create(
                database, new, get_or_create=self._chance.random() < 0.3
            )
        except AlreadyExists:
            assert name in rows
            return
        except NotFound as error:
            raise AssertionError(f"{database.name} was acknowledged") from error
        assert created == (name not in rows)
        rows[name] = _row(made)

    async def _of_one(self, database: Database, rows: dict[str, Row], action: str) -> None:
        name = self._chance.choice(sorted(rows))
        if action == "delete":
            assert await self._catalog.collections.delete(database, name)
            self._ids_deleted.add(rows.pop(name).id)
            return
        collection = await self._catalog.collections.get(database, name)
        assert collection is not None, f"{name} was acknowledged"
        self._count += 1
        new_name = self._chance.choice(NAMES) if action == "rename" else name
        metadata = {"value": self._count}
        try:
            assert await self._catalog.collections.update(database, collection, name=new_name, metadata=metadata)
        except AlreadyExists:
            assert new_name in rows
            assert new_name != name
            return
        del rows[name]
        rows[new_name] = Row(collection.id, new_name, self._count)

    async def check(self) -> None:
        """Compares the catalog with the model, and takes over what was in doubt."""
        for name in DATABASES:
            found = await self._found(name)
            if name == self._doubt:
                self._rows[name] = found
            assert found == self._rows[name], name
            assert not self._ids_deleted & {row.id for row in (found or {}).values()}, "a deleted id came back"
        self._doubt = None

    async def _found(self, database_name: str) -> dict[str, Row] | None:
        database = await self._catalog.databases.get(TENANT, database_name)
        if database is None:
            return None
        return {each.name: _row(each) for each in await self._catalog.collections.of_database(database)}


def _row(collection: Collection) -> Row:
    assert collection.metadata is not None
    return Row(collection.id, collection.name, collection.metadata["value"])
