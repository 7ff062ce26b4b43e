"""What the built-in functions make of metadata, against a plain reference."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pytest
from pyroaring import BitMap

from compactor.sources import Source
from compactor.statistics import Counted, Value, count, record_counter, statistics, values_of
from tests.shared.segment.tables import build, table, vectors_of


def test_the_record_counter_has_one_record() -> None:
    assert record_counter(7) == {"function_output": {"total_count": 7}}


@pytest.mark.parametrize(
    ("metadata", "values"),
    [
        ({"k": "x"}, [Value("k", "str", "x")]),
        ({"k": 10}, [Value("k", "int", "10")]),
        ({"k": 10.0}, [Value("k", "float", "10.0")]),
        ({"k": True, "l": False}, [Value("k", "bool", "true"), Value("l", "bool", "false")]),
        ({"k": ["x", "y", "x"]}, [Value("k", "str", "x"), Value("k", "str", "y"), Value("k", "str", "x")]),
        ({"chroma:hidden": 1}, []),
        (
            {"k": {"#type": "sparse_vector", "indices": [1, 5], "values": [0.5, 1.0], "tokens": ["a", "b"]}},
            [Value("k", "sparse", "1", "a"), Value("k", "sparse", "5", "b")],
        ),
        (
            {"k": {"#type": "sparse_vector", "indices": [1], "values": [0.5], "tokens": None}},
            [Value("k", "sparse", "1")],
        ),
    ],
)
def test_every_type_of_value_is_counted(metadata: dict[str, object], values: list[Value]) -> None:
    assert list(values_of(json.dumps(metadata))) == values


def test_statistics_have_a_record_per_value_and_a_summary() -> None:
    parts = [
        Counter({Value("k", "int", "1"): 2, Value("v", "sparse", "7", "word"): 1}),
        Counter({Value("k", "int", "1"): 1}),
    ]
    assert statistics(3, parts) == {
        "k::int:1": {"count": 3, "key": "k", "type": "int", "value": "1"},
        "v::sparse:7": {"count": 1, "key": "v", "type": "sparse", "value": "7", "value_label": "word"},
        "summary::total_count": {"count": 3, "key": "summary", "type": "int", "value": "total_count"},
    }


def test_an_index_that_has_several_labels_is_one_value() -> None:
    parts = [
        Counter({Value("v", "sparse", "7", "b"): 2, Value("v", "sparse", "7", "a"): 1, Value("v", "sparse", "7"): 4})
    ]
    assert statistics(7, parts)["v::sparse:7"] == {
        "count": 7, "key": "v", "type": "sparse", "value": "7", "value_label": "a",
    }  # fmt: skip


def test_values_that_no_record_has_any_more_are_not_there() -> None:
    assert list(statistics(0, [Counter({Value("k", "int", "1"): 0})])) == ["summary::total_count"]


@pytest.mark.parametrize("remembered", [1, 1_000_000])
def test_dead_rows_do_not_count_whatever_is_remembered(tmp_path: Path, remembered: int) -> None:
    rng = random.Random(remembered)
    counted = Counted(remembered)
    for number in range(3):
        rows = [{"k": rng.randrange(5), "w": rng.choice("abc")} for _ in range(50)]
        records = table(vectors_of(50, 2))
        place = records.schema.get_field_index("metadata")
        texts = pa.array([json.dumps(row) for row in rows], records.schema.field(place).type)
        folder = tmp_path / str(number)
        folder.mkdir()
        info, segment = build(folder, records.set_column(place, records.schema.field(place), texts))
        for _ in range(3):
            dead = BitMap(rng.sample(range(50), 20))
            truth = Counter(
                value for row, one in enumerate(rows) if row not in dead for value in set(values_of(json.dumps(one)))
            )
            assert +counted.live(Source(folder, segment, dead, info)) == truth


def test_a_column_without_metadata_counts_nothing() -> None:
    assert count(pa.chunked_array([pa.array([None, None], pa.large_string())])) == Counter()
