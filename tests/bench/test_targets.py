"""Which targets count as met."""

import pytest

from bench.series import CHROMA, HNSWLIB, POLYCHROME, Results, Series
from bench.targets import TARGETS, Verdict, verdicts
from tests.bench.test_series import results


def verdict(title: str, measured: Results) -> Verdict:
    return next(found for found in verdicts(measured) if found.title.startswith(title))


def both(
    line: str, quantity: str, theirs: float, ours: float, clients: int = 0, detail: str = "", data: str = "real"
) -> Series:
    return Series(data, line, quantity, {CHROMA: [theirs], POLYCHROME: [ours]}, clients, detail)


@pytest.mark.parametrize(("ours", "met"), [(100.0, True), (99.0, False)])
def test_a_ratio_is_met_from_its_value_on(ours: float, met: bool) -> None:
    assert verdict("count, throughput", results(both("count", "per_s", 10.0, ours, 16))).met is met


def test_a_query_with_a_lower_recall_does_not_count() -> None:
    measured = results(both("query k=10", "per_s", 10.0, 90.0, 16), both("query k=10", "recall", 0.98, 0.97))
    found = verdict("query k=10, 16 clients, throughput", measured)
    assert found.met is False
    assert found.remark == "recall 0.970 is below 0.980"


def test_the_noise_of_two_graphs_is_no_lower_recall() -> None:
    measured = results(both("query k=10", "per_s", 10.0, 90.0, 16), both("query k=10", "recall", 0.981, 0.977))
    assert verdict("query k=10, 16 clients, throughput", measured).met is True


def test_every_line_of_a_part_is_held_to_its_target() -> None:
    lines = [both(f"filter {n}", "per_s", 1.0, 40.0 + n, 16, detail=f"{n} %") for n in (-1, 0, 1)]
    found = [one for one in verdicts(results(*lines, part="filters")) if one.title.startswith("where filter")]
    assert [(one.title, one.met) for one in found] == [
        ("where filter -1 (-1 %)", False),
        ("where filter 0 (0 %)", True),
        ("where filter 1 (1 %)", True),
    ]


def test_a_limit_counts_without_chroma() -> None:
    measured = results(Series("real", "memory, idle", "mib", {POLYCHROME: [349.0]}))
    assert verdict("memory of the whole idle cluster", measured).met is True


@pytest.mark.parametrize(("ours", "met"), [(0.9, True), (0.91, False)])
def test_a_query_is_held_to_what_hnswlib_needs_with_one_client(ours: float, met: bool) -> None:
    alone = Series("real", "query k=10", "cpu_ms", {CHROMA: [4.0], POLYCHROME: [0.9], HNSWLIB: [0.3]}, clients=1)
    measured = results(both("query k=10", "cpu_ms", 4.0, ours, 16), alone)
    assert verdict("query at 16 clients against hnswlib", measured).met is met


def test_what_was_not_measured_is_neither_met_nor_missed() -> None:
    assert {found.met for found in verdicts(Results())} == {None}
    assert len(verdicts(Results())) == len(TARGETS)
