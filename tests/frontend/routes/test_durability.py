"""The durability class of a write: asked for by header or body, named in the answer."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from frontend.parse.durability import Durability, parse_durability
from frontend.write.durable import Durable
from shared.errors import LessDurable
from tests.frontend.fakes import COLLECTION_ID, FakeWorkers, Row, new_collection, new_config, new_context
from tests.frontend.server import COLLECTIONS, client_of

BASE = f"{COLLECTIONS}/{COLLECTION_ID}"
ADD = {"ids": ["a"], "embeddings": [[1, 2]]}
COMMIT = {"operations": [{"operation": "add", "payload": ADD}]}
WRITES = [("add", ADD), ("upsert", ADD), ("update", {"ids": ["a"]}), ("delete", {"ids": ["a"]}),
          ("conditional/commit", COMMIT)]  # fmt: skip
NAME = "x-polychrome-durability"


class Watching(Durable):
    """Notes the classes that were asked for; reaches them all but those in `out_of_reach`."""

    def __init__(self) -> None:
        self.checked: list[str] = []
        self.reached: list[str] = []
        self.out_of_reach: set[str] = set()

    async def check(self, durability: Durability) -> None:
        self.checked.append(str(durability))

    async def reach(self, _collection: Any, _appended: Any, durability: Durability) -> None:
        if str(durability) in self.out_of_reach:
            raise LessDurable(f"{durability} was not reached", "disk")
        self.reached.append(str(durability))


def watched(**settings: Any) -> tuple[Any, Watching]:
    context, durable = new_context(new_collection(dimension=2), FakeWorkers([[Row(1, (1, 0))]])), Watching()
    context.config = new_config(**settings)
    context.durable = context.groups._durable = durable
    return context, durable


async def written(context: Any, action: str, body: dict[str, Any], header: str | None = None) -> httpx.Response:
    async with client_of(context) as client:
        return await client.post(f"{BASE}/{action}", json=body, headers={NAME: header} if header else {})


@pytest.mark.parametrize(("action", "body"), WRITES)
async def test_a_write_that_asks_for_nothing_has_the_default_class(action: str, body: dict[str, Any]) -> None:
    for default in ("disk", "replicas:2", "bucket"):
        context, durable = watched(durability=parse_durability(default))
        answer = await written(context, action, body)
        assert (answer.is_success, answer.headers[NAME]) == (True, default)
        assert durable.checked == durable.reached == [default]


@pytest.mark.parametrize(("action", "body"), WRITES)
@pytest.mark.parametrize("place", ["header", "member", "both"])
async def test_a_write_has_the_class_that_it_asks_for(action: str, body: dict[str, Any], place: str) -> None:
    context, durable = watched()
    given = body if place == "header" else {**body, "durability": "replicas:3"}
    answer = await written(context, action, given, None if place == "member" else "replicas:3")
    assert (answer.is_success, answer.headers[NAME]) == (True, "replicas:3")
    assert durable.reached == ["replicas:3"]
    assert [each.replicas for each in context.log.requests] == [3]


@pytest.mark.parametrize("unknown", ["", "Disk", "replicas", "replicas:0", "replicas:10", "replicas:-1", "memory"])
@pytest.mark.parametrize(("action", "body"), WRITES)
async def test_an_unknown_class_is_refused_and_the_choices_are_named(
    action: str, body: dict[str, Any], unknown: str
) -> None:
    context, _ = watched()
    answer = await written(context, action, {**body, "durability": unknown})
    assert answer.status_code == 400
    assert "expected disk, bucket, or replicas:n with n from 1 to 9" in answer.json()["message"]
    assert not context.log.appends


async def test_two_classes_at_once_are_refused() -> None:
    context, _ = watched()
    answer = await written(context, "add", {**ADD, "durability": "disk"}, "bucket")
    assert answer.status_code == 400
    assert not context.log.appends


@pytest.mark.parametrize("wrong", [1, True, ["disk"], {}])
async def test_a_member_that_is_no_text_has_the_wrong_shape(wrong: Any) -> None:
    context, _ = watched()
    assert (await written(context, "add", {**ADD, "durability": wrong})).status_code == 422


async def test_a_write_that_did_not_get_there_is_an_error_that_names_the_class_it_has() -> None:
    context, durable = watched()
    durable.out_of_reach = {"replicas:1"}
    answer = await written(context, "add", ADD, "replicas:1")
    assert (answer.status_code, answer.json()["error"]) == (503, "LessDurableError")
    assert answer.headers[NAME] == "disk"
    assert answer.json()["message"] == "The write is stored, and durability replicas:1 was not reached"
    assert len(context.log.appends) == 1
