"""The table of fairness: what is compared with what, and when the target counts as met."""

from bench.fairness_report import rows
from bench.report import fairness_table
from bench.series import POLYCHROME, PartResult, Results, Series


def results(p99_ms: dict[str, float], errors: dict[str, float]) -> Results:
    series = []
    for line, ms in p99_ms.items():
        for quantity, value in (("p50_ms", ms / 2), ("p99_ms", ms), ("errors", errors.get(line, 0.0))):
            series += [
                Series("neighbours", f"{line}: {operation}", quantity, {POLYCHROME: [value]}, 1)
                for operation in ("query", "upsert")
            ]
    return Results({"fairness": PartResult("now", "quick", "abc", 1.0, {}, series)})


def test_a_flood_is_compared_with_the_same_operation_alone() -> None:
    found = {row.flood: row for row in rows(results({"alone": 10.0, "gets": 25.0, "queries": 25.1}, {}))}
    assert found["gets"].ratio == 2.5
    assert (found["gets"].met, found["queries"].met) == (True, False)  # 2 x 10 ms and 5 ms


def test_a_refusal_misses_the_target_however_quick_it_was() -> None:
    found = results({"alone": 10.0, "gets": 1.0}, {"gets": 1.0})
    assert [row.met for row in rows(found) if row.flood == "gets"] == [False, False]
    assert "NO" in fairness_table(found)


def test_nothing_measured_is_no_row() -> None:
    assert list(rows(Results())) == []
