"""The page: every section also with nothing measured, and figures where they belong."""

from bench.report import cost_ratios, growth_cost, number, page, pair, runs_table, table, target_table
from bench.series import CHROMA, HNSWLIB, POLYCHROME, Results, Series
from tests.bench.test_series import results, series


def test_a_page_without_measurements_says_so() -> None:
    text = page(Results(), "a machine", "the method", "")
    assert text.startswith("# Benchmarks\n")
    assert "0 met, 0 missed, " in text
    assert "not measured at every size" in text
    assert "simulated" not in text


def test_a_simulation_has_a_section_when_there_is_one() -> None:
    assert "## Scale-out, simulated\n\n| a table |" in page(Results(), "", "", "| a table |\n")


def test_a_cell_shows_both_and_how_many_times_better() -> None:
    assert pair(series("per_s", 10.0, 1234.5)) == "10 → 1,234 (123x)"
    assert pair(series("p50_ms", 3.0, 1.0)) == "3 → 1 (3.0x)"
    assert pair(Series("real", "count", "per_s", {POLYCHROME: [5.0]})) == "- → 5"
    assert pair(None) == "-"


def test_numbers_have_three_digits() -> None:
    assert [number(value) for value in (0.01234, 1.0, 12.34, 123.45, 12345.6)] == [
        "0.0123",
        "1",
        "12.3",
        "123.5",
        "12,346",
    ]


def test_a_bar_in_a_cell_does_not_break_the_table() -> None:
    assert table(("a",), [("x|y",)]).splitlines() == ["| a    |", "| ---- |", "| x\\|y |"]


def test_a_missed_target_stands_out() -> None:
    assert " NO " in target_table(results(series("per_s", 10.0, 50.0)))
    assert " NO " not in target_table(results(series("per_s", 10.0, 500.0)))


def test_a_part_that_failed_is_named_with_its_last_line() -> None:
    assert "FAILED: RuntimeError: it broke" in runs_table(results(error="Traceback ...\nRuntimeError: it broke\n"))


def test_growth_is_that_of_the_multiple_of_hnswlib() -> None:
    def at(data: str, ours: float, alone: float) -> list[Series]:
        return [
            Series(data, "query k=10", "cpu_ms", {CHROMA: [4.0], POLYCHROME: [ours]}, clients=16),
            Series(data, "query k=10", "cpu_ms", {HNSWLIB: [alone]}, clients=1),
        ]

    slower = results(*at("small", 0.4, 0.2), *at("real", 0.6, 0.3), *at("large", 0.9, 0.4))
    assert [round(ratio, 2) for ratio in cost_ratios(slower) if ratio] == [2.0, 2.0, 2.25]
    assert "FASTER" in growth_cost(slower)
    assert "no faster" in growth_cost(results(*at("small", 0.4, 0.2), *at("real", 0.5, 0.3), *at("large", 0.8, 0.4)))
