"""What a worker may have died of is not given to the next ones."""

from __future__ import annotations

import pytest

from frontend.http.errors import error_response
from shared.errors import ConnectionLost, DeadlineExceeded, NotRepeated, Unavailable
from shared.records.selection import Selection
from shared.records.where import DocumentRegex, MetadataIn
from shared.rpc.messages import CountRequest
from tests.frontend.read.test_workers import SHARD, Bench

LOST = ConnectionLost("lost")
COSTLY: list[DocumentRegex | MetadataIn] = [DocumentRegex("a.*b"), MetadataIn("k", list(range(5000)))]


async def _count(bench: Bench, where: DocumentRegex | MetadataIn | None) -> None:
    await bench.workers.count(CountRequest(SHARD, Selection(where=where)))


@pytest.mark.parametrize("where", COSTLY)
@pytest.mark.parametrize("members", [["w1"], ["w1", "w2", "w3"]])
async def test_a_costly_call_is_not_repeated_after_a_worker_died(
    members: list[str], where: DocumentRegex | MetadataIn
) -> None:
    bench = Bench(*members)
    bench.rpc.answers = dict.fromkeys(members, LOST)
    with pytest.raises(NotRepeated, match="not given to another") as raised:
        await _count(bench, where)
    assert len(bench.rpc.asked) == 1
    answer = error_response(raised.value, "/query")
    assert answer.status == 503
    assert b"A query worker was lost while it worked on this request" in answer.body


@pytest.mark.parametrize("members", [["w1"], ["w1", "w2", "w3"]])
async def test_a_cheap_call_is_repeated_once(members: list[str]) -> None:
    bench = Bench(*members)
    bench.rpc.answers = dict.fromkeys(members, LOST)
    with pytest.raises(NotRepeated):
        await bench.count()
    assert len(bench.rpc.asked) == 2
    bench.rpc.answers = {bench.order[0]: LOST} if len(members) > 1 else {}
    bench.clock.time += 10
    assert await bench.count() == 7


@pytest.mark.parametrize("where", COSTLY)
async def test_workers_that_have_not_worked_on_a_costly_call_are_gone_past(
    where: DocumentRegex | MetadataIn,
) -> None:
    bench = Bench("w1", "w2")
    bench.rpc.answers[bench.order[0]] = Unavailable("cannot reach it")
    await _count(bench, where)
    assert bench.rpc.asked == bench.order


async def test_a_costly_call_whose_time_is_over_is_not_begun_anew() -> None:
    bench = Bench("w1", "w2")
    bench.rpc.answers = dict.fromkeys(("w1", "w2"), DeadlineExceeded("slow"))
    with pytest.raises(DeadlineExceeded):
        await _count(bench, COSTLY[1])
    assert len(bench.rpc.asked) == 1
