"""Sorting and counting by the metadata index, against the JSON itself."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import orjson
import pytest

from queryworker.query.field_values import first_rows, value_counts
from shared.records.indexing import Indexing
from shared.search.model import OrderKey
from shared.search.ordering import sortable, sorted_indices
from shared.segment.metadata_index import MetadataIndex
from tests.search.generate import FIELDS, Generator


def metadatas(seed: int, count: int = 120) -> list[dict[str, Any]]:
    generate = Generator(seed)
    return [generate.metadata(patch=False) or {} for _ in range(count)]


def index_of(rows: list[dict[str, Any]]) -> MetadataIndex:
    return MetadataIndex.from_json([orjson.dumps(row).decode() if row else None for row in rows])


@pytest.mark.parametrize("seed", range(20))
def test_the_first_rows_are_those_that_sorting_the_values_gives(seed: int) -> None:
    rows = metadatas(seed)
    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(rows), 80, replace=False))
    inserted = random.permutation(1000)[:80]
    order_by = [OrderKey(str(key), direction) for key in random.choice(FIELDS, 2) for direction in ("asc", "desc")][
        seed % 3 :
    ]
    by_insertion = np.argsort(inserted)
    values = [[sortable(rows[row], step.key) for step in order_by] for row in chosen[by_insertion].tolist()]
    expected = chosen[by_insertion][sorted_indices(order_by, values)]

    for limit in (0, 7, None):
        found = first_rows(index_of(rows), order_by, chosen, inserted, limit)
        assert found.tolist() == expected[:limit].tolist()


def test_integers_beyond_the_precision_of_floats_are_sorted_exactly() -> None:
    values = [2**60 + 1, float(2**60), 2**60, 2**60 + 2, -(2**60) - 1, float(-(2**60))]
    rows = [{"n": value} for value in values]
    found = first_rows(index_of(rows), [OrderKey("n")], np.arange(len(rows)), np.arange(len(rows)), None)
    assert found.tolist() == [4, 5, 1, 2, 0, 3]


@pytest.mark.parametrize("seed", range(5))
def test_values_are_counted_once_per_row_and_by_type(seed: int) -> None:
    rows = metadatas(seed)
    mask = np.random.default_rng(seed).random(len(rows)) < 0.5
    for key in FIELDS:
        expected: Counter[tuple[str, Any]] = Counter()
        for row in np.flatnonzero(mask).tolist():
            value = rows[row].get(key)
            values = value if isinstance(value, list) else [] if value is None else [value]
            if type(value) is list and {float, int} == set(map(type, value)):
                values = value
            expected.update({(type(one).__name__, one) for one in values})
        found: Counter[tuple[str, Any]] = Counter()
        for value, count in value_counts(index_of(rows), key, mask):
            found[type(value).__name__, value] += count
        assert +found == expected


def test_what_the_schema_switches_off_is_not_indexed() -> None:
    indexing = Indexing(off=["int"], keys={"n": {"int": True}, "s": {"string": False}})
    rows = ['{"n":1,"m":1,"s":"x","t":"x","tags":["a"],"is":[1]}']
    index = MetadataIndex.from_json(rows, indexing)
    assert sorted(key for key, _ in index.names()) == ["n", "t", "tags"]
