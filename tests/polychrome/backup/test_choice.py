"""Which backups are removed, and which one is taken."""

import pytest

from polychrome.backup.choice import BackupKind, chosen, outdated
from polychrome.backup.model import Backup
from shared.errors import InvalidArgument

EVERYTHING = None
SHOP = frozenset({"shop"})


def kinds(*described: tuple[str, frozenset[str] | None] | tuple[str, frozenset[str] | None, bool]) -> list[BackupKind]:
    return [BackupKind(each[0], each[1], each[2] if len(each) == 3 else True) for each in described]


def test_the_newest_stay() -> None:
    backups = kinds(("1", EVERYTHING), ("2", EVERYTHING), ("3", EVERYTHING))
    assert outdated(backups, keep=2) == ["1"]
    assert outdated(backups, keep=3) == []
    assert outdated([], keep=1) == []


def test_a_backup_of_one_collection_pushes_out_none_of_everything() -> None:
    backups = kinds(("1", EVERYTHING), ("2", SHOP), ("3", SHOP), ("4", frozenset({"other"})))
    assert outdated(backups, keep=1) == ["2"]


def test_a_backup_that_lacks_a_damaged_collection_pushes_out_none_that_has_it() -> None:
    backups = kinds(("1", EVERYTHING), ("2", EVERYTHING), ("3", EVERYTHING, False), ("4", EVERYTHING, False))
    assert outdated(backups, keep=1) == ["1"]
    assert outdated(backups, keep=2) == []


def test_an_incomplete_backup_goes_when_enough_complete_ones_came_after_it() -> None:
    assert outdated(kinds(("1", EVERYTHING, False), ("2", EVERYTHING), ("3", EVERYTHING, False)), keep=1) == ["1"]


@pytest.mark.parametrize("name", ["", "ab", "a/b", "-dash", "two..dots", "127.0.0.1", "x" * 513])
def test_a_collection_is_restored_under_no_name_that_a_client_could_not_give_it(name: str) -> None:
    backup = Backup("20261130T184501.250Z", "cluster", 0.0, 1.0, [], [], [])
    with pytest.raises(InvalidArgument):
        chosen(backup, "shop", name)
