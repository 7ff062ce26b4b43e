"""Which queries are answered as one batch."""

from __future__ import annotations

from typing import Any

from queryworker.query.batches import CHEAP_FILTER_VALUES_MAX, FILTERED_VECTORS_MAX, VECTORS_MAX, batches
from shared.records.model import Include
from shared.records.selection import Selection
from shared.records.where import (
    All,
    AnyOf,
    Compare,
    DocumentContains,
    DocumentRegex,
    IdIn,
    MetadataCompare,
    MetadataIn,
    Where,
)
from shared.rpc import messages

OTHER = MetadataIn("n", [1, 5, 9])
FILTER = Selection(where=MetadataCompare("n", Compare.GTE, 40))


def _plain(vectors: int = 1, **options: Any) -> messages.QueryRequest:
    fields: dict[str, Any] = {"k": 3, "ef_search": 10, **options}
    return messages.QueryRequest(messages.Shard("c"), bytes(8 * vectors), vectors, 2, **fields)


def test_plain_queries_that_differ_in_their_vectors_alone_go_together() -> None:
    others = [_plain(k=4), _plain(ef_search=11), _plain(documents=True), _plain(include=[Include.DISTANCES])]
    requests = [_plain(), others[0], _plain(), *others[1:], _plain(), others[0]]
    assert sorted(batches(requests)) == [[0, 2, 6], [1, 7], [3], [4], [5]]


def test_queries_with_cheap_filters_go_together_by_few_and_leave_half_to_another_thread() -> None:
    cheap = [_plain(selection=FILTER if n % 2 else Selection(where=All([OTHER, OTHER]))) for n in range(20)]
    assert sorted(batches([_plain(), *cheap[:2], _plain()])) == [[0, 3], [1], [2]]
    assert sorted(batches(cheap[:5])) == [[0, 1], [2, 3], [4]]
    assert [len(batch) for batch in batches(cheap)] == [FILTERED_VECTORS_MAX] * (20 // FILTERED_VECTORS_MAX)
    assert sorted(batches([*cheap[:4], _plain(k=4, selection=FILTER), _plain(3, selection=FILTER)])) == [
        [0, 1, 2], [3], [4], [5],
    ]  # fmt: skip


def test_a_query_with_any_other_selection_is_by_itself() -> None:
    many = MetadataIn("n", list(range(CHEAP_FILTER_VALUES_MAX + 1)))
    wheres: list[Where] = [DocumentContains("x"), All([OTHER, AnyOf([DocumentRegex("x")])]), IdIn(["r1"]), many]
    selections = [Selection(where=where) for where in wheres]
    selections += [Selection(ids=["r1"]), Selection(ids=["r1"], where=OTHER)]
    requests = [_plain(selection=selection) for selection in selections for _ in range(4)]
    assert batches(requests) == [[number] for number in range(len(requests))]


def test_a_batch_is_bounded_by_its_vectors() -> None:
    requests = [_plain() for _ in range(2 * VECTORS_MAX + 1)] + [_plain(10 * VECTORS_MAX), _plain(VECTORS_MAX - 1)]
    made = batches(requests)
    assert sorted(number for batch in made for number in batch) == list(range(len(requests)))
    assert [len(batch) for batch in made] == [VECTORS_MAX, VECTORS_MAX, 1, 1, 1]
    assert batches([]) == []
