"""A read concerns the shards that can have what it asks for, and no others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from frontend.read.gets import Get, Page, get_body
from frontend.read.shards import concerned
from shared.cluster.placement import shard_of
from shared.errors import Damaged
from shared.records.include import GET_DEFAULT, Wanted
from shared.records.selection import Selection
from tests.frontend.fakes import FakeWorkers, Row, new_collection

IDS = [f"id{number}" for number in range(30)]
HOMES = shard_of(IDS, 3).tolist()
WANTED = Wanted(GET_DEFAULT)


class ThirdShardIsDamaged(FakeWorkers):
    def _matching(self, request: Any) -> list[Row]:
        if request.shard.shard == 2:
            raise Damaged("shard 2 of collection c")
        return super()._matching(request)


def workers() -> Any:
    rows = [Row(number, (number, 0)) for number in range(len(IDS))]
    return ThirdShardIsDamaged([[row for row, home in zip(rows, HOMES, strict=True) if home == n] for n in range(3)])


def test_ids_say_which_shards_are_concerned() -> None:
    collection = new_collection(shards=3)
    by_home = {home: [id_ for id_, each in zip(IDS, HOMES, strict=True) if each == home] for home in range(3)}
    assert list(concerned(collection, Selection())) == [0, 1, 2]
    assert list(concerned(collection, Selection(ids=[]))) == [0]
    for home, ids in by_home.items():
        assert list(concerned(collection, Selection(ids=ids))) == [home]
    assert list(concerned(collection, Selection(ids=[*by_home[2][:1], *by_home[0]]))) == [0, 2]


@pytest.mark.parametrize("page", [Page(), Page(0, 5)])
async def test_a_read_by_ids_of_other_shards_is_answered_though_one_shard_is_damaged(page: Page) -> None:
    ids = [id_ for id_, home in zip(IDS, HOMES, strict=True) if home != 2]
    body = await get_body(workers(), new_collection(shards=3), Get(Selection(ids=ids), page, WANTED))
    assert json.loads(bytes(body))["ids"] == ids[: page.limit]
    with pytest.raises(Damaged):
        await get_body(workers(), new_collection(shards=3), Get(Selection(), page, WANTED))
    with pytest.raises(Damaged):
        await get_body(workers(), new_collection(shards=3), Get(Selection(ids=IDS), page, WANTED))
