"""What is kept of the answers to filters."""

from queryworker.filter.cached import FILTER_BYTES_MAX, RESULTS_MAX, CachedFilters
from shared.records.where import AnyOf, DocumentContains, IdIn
from tests.queryworker.filter.columns import columns_of
from tests.queryworker.filter.scalar import Row


def test_the_results_of_the_last_filters_are_kept_and_counted_with_what_they_hold() -> None:
    filters = CachedFilters(columns_of([Row(f"i{i}", f"text {i}", None) for i in range(100)]))
    where = DocumentContains("text")
    first = filters.evaluate(where)
    assert filters.evaluate(DocumentContains("text")) is first
    assert filters.bytes == 2 * 100 * 2
    first.resolve_all()
    assert filters.bytes == 2 * 100
    assert filters.evaluate(AnyOf([DocumentContains("a"), DocumentContains("b")])).undecided_clauses == 2
    assert filters.bytes == 2 * 100 * (1 + 3)
    for number in range(RESULTS_MAX):
        filters.evaluate(IdIn([str(number)]))
    assert filters.bytes == 2 * 100 * RESULTS_MAX
    assert filters.evaluate(where) is not first


def test_a_long_filter_is_answered_and_not_kept() -> None:
    filters = CachedFilters(columns_of([Row("i1", "text", None)]))
    long = IdIn(["i1", "x" * FILTER_BYTES_MAX])
    assert filters.evaluate(long).matching.tolist() == [True]
    assert filters.evaluate(long) is not filters.evaluate(long)
    assert filters.bytes == 0
