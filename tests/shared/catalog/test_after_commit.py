"""Redis goes away right after a change of the catalog was committed: nobody may be told that nothing was changed."""

from __future__ import annotations

from typing import Any

import pytest

from shared.catalog import Catalog, Collection, Database, NewCollection
from shared.errors import Unavailable, UnknownOutcome
from shared.log.lifecycle import Lifecycle
from tests.shared.log.appending import FIXED


async def away(*_args: Any, **_options: Any) -> None:
    raise Unavailable("The log is unavailable")


async def make(catalog: Catalog, database: Database, name: str) -> Collection:
    new = NewCollection(name, None, {}, {}, {**FIXED, "shards": 1})
    return (await catalog.collections.create(database, new, False))[0]


async def test_a_creation_that_is_not_found_out_about_any_more_has_an_unknown_outcome(
    catalog: Catalog, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(catalog.collections, "get_by_id", away)
        with pytest.raises(UnknownOutcome):
            await make(catalog, database, "a")
    assert await catalog.collections.get(database, "a") is not None


async def test_a_renaming_and_a_deletion_that_do_not_come_to_their_end_have_unknown_outcomes(
    catalog: Catalog, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await make(catalog, database, "a")
    with monkeypatch.context() as broken:
        broken.setattr(Lifecycle, "raise_generation", away)
        with pytest.raises(UnknownOutcome):
            await catalog.collections.update(database, made, name="b")
    assert await catalog.collections.get(database, "b") is not None
    with monkeypatch.context() as broken:
        broken.setattr(Lifecycle, "mark_deleted", away)
        with pytest.raises(UnknownOutcome):
            await catalog.collections.delete(database, "b")
    assert await catalog.collections.get(database, "b") is None


async def test_before_the_commit_it_is_certain_that_nothing_was_changed(
    catalog: Catalog, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Lifecycle, "create", away)
        with pytest.raises(Unavailable) as refused:
            await make(catalog, database, "a")
    assert not isinstance(refused.value, UnknownOutcome)
    assert await catalog.collections.get(database, "a") is None
