"""Families match the part of the rows that they are named for, and masks are right."""

import numpy as np
import pytest

from bench import filters
from bench.data import Dataset, synthetic


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return synthetic("test", 12_000, dimension=8)


def test_families_cover_the_selectivities(rows: Dataset) -> None:
    shares = {family.name: family.share for family in (*filters.wheres(rows), *filters.texts(rows))}
    assert {name: shares[name] for name in ("maintainer =", "section $in", "section $ne")} == pytest.approx(
        {"maintainer =": 0.001, "section $in": 0.1, "section $ne": 0.99}, rel=0.3
    )
    for share in (0.001, 0.01, 0.1, 0.5, 0.99):
        assert shares[f"range of installed_size, {share * 100:g} %"] == pytest.approx(share, rel=0.3)
    assert shares["$contains, 1 %"] == pytest.approx(0.01, rel=0.5)


def test_what_is_measured_at_every_size_has_the_names_of_the_full_list(rows: Dataset) -> None:
    few = {family.name for family in (*filters.few_wheres(rows), *filters.few_texts(rows))}
    assert few <= {family.name for family in (*filters.wheres(rows), *filters.texts(rows))}


def test_masks_are_those_of_the_rows(rows: Dataset) -> None:
    where = {"$and": [{"section": {"$in": ["section-0", "section-1"]}}, {"installed_size": {"$gte": 500}}]}
    expected = [one["section"] in {"section-0", "section-1"} and one["installed_size"] >= 500 for one in rows.metadatas]
    assert filters.mask(rows, {"where": where}).tolist() == expected
    word = rows.documents[0].split()[-1]
    contained = filters.mask(rows, {"where_document": {"$contains": word}})
    assert contained.tolist() == [word in text for text in rows.documents]


def test_the_true_neighbours_under_a_mask_are_in_it(rows: Dataset) -> None:
    mask = np.zeros(len(rows), dtype=bool)
    mask[[3, 5, 8]] = True
    assert rows.nearest(rows.queries[0], 10, mask) == {"row-3", "row-5", "row-8"}
    distances = ((rows.vectors - rows.queries[0]) ** 2).sum(axis=1)
    expected = {rows.ids[row] for row in np.argsort(distances)[:10]}
    assert rows.nearest(rows.queries[0], 10) == expected == rows.all_nearest(10, 1)[0]


def test_made_up_rows_are_the_same_for_the_same_seed() -> None:
    one, other = synthetic("a", 50, 8), synthetic("a", 50, 8)
    assert one.documents == other.documents
    assert one.metadatas == other.metadatas
    assert np.array_equal(one.vectors, other.vectors)
