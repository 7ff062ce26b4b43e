"""Which parts a command line chooses."""

import pytest

from bench.programme import PARTS, STAGES, chosen
from bench.targets import TARGETS


def names(*wanted: str) -> list[tuple[str, list[str]]]:
    return [(plan.name, [part.name for part in parts]) for plan, parts in chosen(wanted)]


def test_without_a_name_all_parts_are_chosen_stage_by_stage() -> None:
    assert [part for _, parts in names() for part in parts] == list(PARTS)
    assert [stage for stage, _ in names()] == list(STAGES)


def test_parts_of_one_stage_share_it_in_the_order_of_the_programme() -> None:
    assert names("texts", "collections", "queries") == [("real", ["queries", "texts"]), ("empty", ["collections"])]


def test_a_stage_chooses_its_parts() -> None:
    assert names("wide") == [("wide", ["wide"])]
    assert names("real")[0][1] == [part.name for part in PARTS.values() if part.stage == "real"]


def test_the_page_alone_measures_nothing() -> None:
    assert names("page") == []


def test_an_unknown_part_is_named() -> None:
    with pytest.raises(SystemExit, match="no part nonsense"):
        names("nonsense")


def test_parts_with_targets_exist() -> None:
    assert {target.part for target in TARGETS if target.part} <= set(PARTS)
