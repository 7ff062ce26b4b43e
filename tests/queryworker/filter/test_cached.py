"""What is kept of the answers to filters."""

from queryworker.filter.cached import FILTER_BYTES_MAX, KEPT_MAX, Verdicts
from shared.records.where import AnyOf, DocumentContains, IdIn
from tests.queryworker.filter.parts import part_of
from tests.queryworker.filter.scalar import Row


def test_the_last_filters_verdicts_are_kept_and_counted_with_what_they_hold() -> None:
    verdicts = Verdicts(part_of([Row(f"i{i}", f"text {i}", None) for i in range(100)]))
    where = DocumentContains("text")
    first = verdicts.of(where)
    assert verdicts.of(DocumentContains("text")) is first
    assert verdicts.bytes == 2 * 100 * 2
    first.settle()
    assert verdicts.bytes == 2 * 100
    assert verdicts.of(AnyOf([DocumentContains("a"), DocumentContains("b")])).opened == 2
    assert verdicts.bytes == 2 * 100 * (1 + 3)
    for number in range(KEPT_MAX):
        verdicts.of(IdIn([str(number)]))
    assert verdicts.bytes == 2 * 100 * KEPT_MAX
    assert verdicts.of(where) is not first


def test_a_long_filter_is_answered_and_not_kept() -> None:
    verdicts = Verdicts(part_of([Row("i1", "text", None)]))
    long = IdIn(["i1", "x" * FILTER_BYTES_MAX])
    assert verdicts.of(long).sure.tolist() == [True]
    assert verdicts.of(long) is not verdicts.of(long)
    assert verdicts.bytes == 0
