"""The state that a collection is restored to, row by row of the table in logservice/restoring/choice.py (promise 9)."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from logservice.restoring.choice import Choice, OwnState, StoredManifest, StoredState, Taken, choose, history_epoch
from shared.cluster.placement import Layout
from shared.log.state import Pointer
from shared.manifest.model import Manifest
from shared.manifest.roots import Root, make_root

ONE, TWO = Layout(0, 1), Layout(0, 2)


def pointer(version: int, covers: int) -> Pointer:
    return Pointer(version, f"hash {version}", covers)


def stored_manifest(version: int, covers: int, epoch: int = 1) -> StoredManifest:
    manifest = Manifest(
        collection="c", shard=0, version=version, parent=None, covers=covers, dimension=2, segments=[], rows=0,
        digest="0" * 32, written_by="test", created_s=0.0, epoch=epoch,
    )  # fmt: skip
    return manifest, pointer(version, covers)


def root(position: int, pointers: list[Pointer | None], epoch: int = 1, layout: Layout = TWO) -> Root:
    return make_root("c", epoch, position, layout, pointers, "test", 0.0)


ROOT = root(100, [pointer(3, 100), pointer(5, 90)])
STORED = StoredState(TWO, ROOT)
OWN = OwnState(1, 150, TWO, [pointer(4, 150), pointer(5, 90)], whole=True)


def test_a_whole_log_that_reaches_as_far_as_the_root_goes_on_with_the_later_manifest_of_each_shard() -> None:
    assert choose(OWN, STORED) == Choice(Taken.LOG, TWO, list(OWN.pointers), [150, 150], 90)
    behind = dataclasses.replace(OWN, head=100, pointers=[pointer(2, 50), None])
    assert choose(behind, STORED) == Choice(Taken.LOG, TWO, ROOT.pointers, [100, 100], 90)


@pytest.mark.parametrize(
    "own",
    [
        None,
        dataclasses.replace(OWN, whole=False),
        dataclasses.replace(OWN, head=99),
        dataclasses.replace(OWN, epoch=0),
    ],
)
def test_a_log_that_is_lost_has_a_gap_or_ends_before_the_root_gives_way_to_it(own: OwnState | None) -> None:
    assert choose(own, STORED) == Choice(Taken.ROOT, TWO, ROOT.pointers, [100, 100], 100)


def test_a_log_of_a_later_epoch_than_the_root_goes_on_whatever_their_positions() -> None:
    assert choose(dataclasses.replace(OWN, epoch=2, head=7), STORED).taken is Taken.LOG


def test_a_root_of_a_later_layout_is_taken_and_one_of_an_earlier_layout_gives_way_to_the_log() -> None:
    later = Layout(2, 3)
    switched = StoredState(later, root(150, [None] * 3, layout=later))
    assert choose(OWN, switched) == Choice(Taken.ROOT, later, [None] * 3, [150] * 3, 150)
    own = OwnState(1, 150, later, [pointer(1, 120), None, pointer(1, 150)], whole=True)
    assert choose(own, STORED) == Choice(Taken.LOG, later, list(own.pointers), [150] * 3, 1)
    assert choose(None, STORED).layout == TWO  # until the new layout has a root


def test_a_single_shard_gets_its_newest_manifest() -> None:
    stored = StoredState(ONE, None, [stored_manifest(4, 80)])
    assert choose(None, stored) == Choice(Taken.MANIFEST, ONE, [pointer(4, 80)], [80], 80)
    assert choose(None, StoredState(ONE, None, [None])) == Choice(Taken.MANIFEST, ONE, [None], [1], 1)


def test_a_single_shard_never_gets_a_manifest_of_an_epoch_before_its_root() -> None:
    given_up, kept = stored_manifest(6, 120), root(100, [pointer(5, 100)], epoch=2, layout=ONE)
    assert choose(None, StoredState(ONE, kept, [given_up])).pointers == [pointer(5, 100)]
    assert choose(None, StoredState(ONE, kept, [None])).pointers == [pointer(5, 100)]
    later = stored_manifest(7, 110, epoch=2)
    assert choose(None, StoredState(ONE, kept, [later])).pointers == [pointer(7, 110)]


def test_a_single_shard_goes_on_with_a_whole_log_that_reaches_as_far_as_its_newest_manifest() -> None:
    stored = StoredState(ONE, None, [stored_manifest(4, 80)])
    own = OwnState(1, 80, ONE, [pointer(3, 50)], whole=True)
    assert choose(own, stored) == Choice(Taken.LOG, ONE, [pointer(4, 80)], [80], 80)
    assert choose(dataclasses.replace(own, head=79), stored).taken is Taken.MANIFEST


def test_several_shards_without_a_root_get_their_newest_manifests_and_that_is_said() -> None:
    stored = StoredState(TWO, None, [stored_manifest(4, 80), stored_manifest(2, 60)])
    assert choose(None, stored) == Choice(Taken.MANIFESTS, TWO, [pointer(4, 80), pointer(2, 60)], [80, 60], 80)


def test_whatever_is_chosen_of_several_shards_with_a_root_is_of_one_moment() -> None:
    """Every shard's manifest is the root's, or the log continues it: in any mixture of what is known."""
    chance = random.Random(1)
    for whole, epoch in itertools.product((True, False), (0, 1, 2)):
        for _ in range(200):
            positions = sorted(chance.sample(range(1, 300), 3))
            named = [pointer(1, chance.randint(1, positions[1])) for _ in range(2)]
            mine = [pointer(chance.choice((1, 2)), chance.randint(1, positions[2])) for _ in range(2)]
            own = OwnState(epoch, chance.choice(positions), TWO, mine, whole)
            chosen = choose(own, StoredState(TWO, root(positions[1], list(named))))
            if chosen.taken is Taken.ROOT:
                assert chosen.pointers == named
                assert not whole or (epoch, own.head) < (1, positions[1])
            else:
                assert (chosen.taken, chosen.covered) == (Taken.LOG, [own.head] * 2)
                assert whole
                assert (epoch, own.head) >= (1, positions[1])
                assert all(one in (*mine, *named) for one in chosen.pointers)


def test_a_log_with_a_gap_goes_on_behind_the_manifests_that_cover_the_gap_and_not_behind_the_root() -> None:
    meeting = StoredState(TWO, ROOT, beyond=[stored_manifest(6, 140), stored_manifest(7, 140)])
    own = dataclasses.replace(OWN, pointers=[None, None], gaps_end=130)
    assert choose(own, meeting) == Choice(Taken.LOG, TWO, [pointer(6, 140), pointer(7, 140)], [150, 150], 140)
    apart = dataclasses.replace(meeting, beyond=[stored_manifest(6, 140), stored_manifest(7, 135)])
    assert choose(own, apart).pointers == [pointer(6, 140), pointer(7, 135)]


def test_manifests_since_the_root_that_do_not_meet_are_not_taken_where_the_log_between_them_has_a_gap() -> None:
    apart = StoredState(TWO, ROOT, beyond=[stored_manifest(6, 140), stored_manifest(7, 125)])
    own = dataclasses.replace(OWN, pointers=[None, None], gaps_end=130)
    assert choose(own, apart).pointers == ROOT.pointers
    ends_before = dataclasses.replace(own, head=139, gaps_end=1)
    assert choose(ends_before, apart).pointers == ROOT.pointers


def test_a_manifest_since_the_root_of_another_epoch_than_the_log_or_without_its_records_is_not_taken() -> None:
    own = dataclasses.replace(OWN, pointers=[None, None], epoch=2)
    stored = StoredState(TWO, ROOT, beyond=[stored_manifest(6, 140), stored_manifest(7, 140, epoch=2)])
    assert choose(own, stored).pointers == [pointer(3, 100), pointer(7, 140)]
    assert choose(own, dataclasses.replace(stored, beyond=[None, None])).pointers == ROOT.pointers


def test_a_redis_that_is_as_it_was_before_a_restoration_with_its_log_has_the_beginning_of_the_epoch_after_it() -> None:
    continued = make_root("c", 1, 100, TWO, ROOT.pointers, "test", 0.0, continues=(0, 150))
    assert history_epoch((0, 120), continued) == 1
    assert history_epoch((0, 151), continued) == 0  # what it has behind 150 may have been given up
    assert history_epoch((0, 120), ROOT) == 0
    assert history_epoch((0, 120), None) == 0


def test_a_log_that_goes_on_says_up_to_where_it_is_whole() -> None:
    own = dataclasses.replace(OWN, as_found=(0, 120))
    assert choose(own, STORED).continues == (0, 150)  # what was put back counts
    assert choose(dataclasses.replace(own, gaps_end=130), STORED).continues == (0, 120)
    assert choose(dataclasses.replace(own, whole=False), STORED).continues is None
