"""The reserve on a disk: when it is given back, when it is taken, and what is said."""

from pathlib import Path

import pytest

from polychrome.local import space
from polychrome.local.space import RESERVE_FILE, Reserve, SpaceWatch, Step, Watched, disks_of, full_disks, next_step

MIB = 1024 * 1024


@pytest.mark.parametrize(
    ("held", "free_mib", "step"),
    [
        (True, 100, Step.NOTHING),
        (True, 16, Step.NOTHING),
        (True, 15, Step.RELEASE),
        (True, 0, Step.RELEASE),
        (False, 0, Step.NOTHING),
        (False, 95, Step.NOTHING),
        (False, 96, Step.TAKE),
    ],
)
def test_a_reserve_is_given_back_on_a_full_disk_and_taken_when_there_is_more_than_it_needs(
    held: bool, free_mib: int, step: Step
) -> None:
    assert next_step(held=held, free=free_mib * MIB, reserve=64 * MIB) is step


@pytest.mark.parametrize("reserve_mib", [1, 64, 1000])
def test_what_taking_a_reserve_leaves_free_is_not_a_full_disk(reserve_mib: int) -> None:
    free = next(
        mib for mib in range(10_000) if next_step(held=False, free=mib * MIB, reserve=reserve_mib * MIB) is Step.TAKE
    )
    assert next_step(held=True, free=(free - reserve_mib) * MIB, reserve=reserve_mib * MIB) is Step.NOTHING


class Gate:
    """A server that is away until it `answers`."""

    def __init__(self) -> None:
        self.answers = False
        self.refusing: list[bool] = []

    def set(self, *, refuse: bool) -> bool:
        if self.answers:
            self.refusing.append(refuse)
        return self.answers

    def reclaim(self) -> None:
        pass


def test_writes_are_refused_while_the_reserve_is_given_back_and_again_after_a_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = 1000 * MIB
    monkeypatch.setattr(space, "free_bytes", lambda _folder: free)
    gate, said = Gate(), list[str]()
    watch = SpaceWatch([Reserve(tmp_path, 4 * MIB)], [Watched(tmp_path, "logs are lost")], gate, said.append)
    watch.check()
    assert (tmp_path / RESERVE_FILE).stat().st_blocks * 512 >= 4 * MIB
    gate.answers = True
    watch.check()
    assert gate.refusing == [False]
    free = 0
    assert full_disks([tmp_path], []) == []
    watch.check()
    watch.check()
    assert gate.refusing == [False, True]
    assert not (tmp_path / RESERVE_FILE).exists()
    assert [line.partition("; ")[2] for line in said] == [
        "records are refused, deletes and compaction use the reserve",
    ]
    assert len(full_disks([tmp_path], [])) == 1
    assert not watch.may_start()
    watch.server_restarts()
    free = 1000 * MIB
    assert watch.may_start()
    watch.check()
    assert gate.refusing == [False, True, False]
    assert said[-1].endswith("records are taken again")


def test_folders_on_one_disk_need_one_reserve(tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    assert disks_of([tmp_path / "redis", tmp_path, tmp_path / "missing"]) == [tmp_path / "redis"]
