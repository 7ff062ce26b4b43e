"""Roots as garbage, and what they protect (logservice/garbage/roots.py)."""

from __future__ import annotations

from logservice.garbage.plan import CatalogView, LayoutChange, Listing, Periods, plan_manifests
from logservice.garbage.roots import RootReferences, plan_roots, references_of
from shared.cluster.placement import Layout
from shared.log.state import Pointer
from shared.manifest.roots import Root, make_root
from shared.objects.keys import manifest_key, root_key
from shared.objects.port import ObjectInfo

NOW_S = 1000.0
PERIODS = Periods(grace_s=100.0, retention_s=50.0)


def root_info(epoch: int, position: int, modified_s: float, collection: str = "c") -> ObjectInfo:
    return ObjectInfo(root_key(collection, epoch, position), 1, modified_s)


def manifest_info(shard: int, version: int, modified_s: float = 0.0) -> ObjectInfo:
    return ObjectInfo(manifest_key("c", shard, version), 1, modified_s)


def root(position: int, layout: Layout, *versions: int) -> Root:
    pointers: list[Pointer | None] = [Pointer(version, "h", position) for version in versions]
    return make_root("c", 0, position, layout, pointers, "test", 0.0)


def test_the_newest_root_is_kept_for_ever_and_one_that_was_replaced_for_the_retention() -> None:
    found = [
        root_info(1, 900, 10.0),
        root_info(2, 50, 20.0),  # replaced at 940
        root_info(2, 60, 940.0),  # replaced at 960
        root_info(2, 70, 960.0),
        root_info(0, 10, 0.0, "other"),
        root_info(0, 10, 0.0, "dead"),
    ]
    plan = plan_roots(found, {"c", "other"}, NOW_S - PERIODS.retention_s)
    assert plan.kept == sorted([found[2].key, found[3].key, found[4].key])
    assert plan.deleted == sorted([found[0].key, found[1].key])


def test_the_manifests_that_a_kept_root_names_are_kept_however_long_ago_they_were_replaced() -> None:
    objects = [manifest_info(shard, version) for shard in (0, 1) for version in (1, 2, 3)]
    pointers: dict[tuple[str, int], Pointer | None] = {("c", shard): Pointer(3, "h", 90) for shard in (0, 1)}
    named = references_of([root(50, Layout(0, 2), 1, 2)], frozenset(), {})
    plan = plan_manifests(Listing(objects, NOW_S), CatalogView(pointers, {}), PERIODS, named)
    assert plan.deleted == sorted([manifest_key("c", 0, 2), manifest_key("c", 1, 1)])


def test_the_shards_of_the_newest_roots_layout_are_kept_until_the_present_one_has_a_root() -> None:
    objects = [manifest_info(0, 4), manifest_info(0, 5), manifest_info(1, 1), manifest_info(2, 1)]
    pointers: dict[tuple[str, int], Pointer | None] = {("c", shard): Pointer(1, "h", 90) for shard in (1, 2)}
    view = CatalogView(pointers, {}, {"c": LayoutChange(1, 0.0)})

    def deleted(*roots: Root) -> list[str]:
        return plan_manifests(
            Listing(objects, NOW_S), view, PERIODS, references_of(roots, frozenset(), pointers)
        ).deleted

    before, after = root(50, Layout(0, 1), 4), root(90, Layout(1, 2), 1, 1)
    assert deleted(before) == []
    assert deleted(before, after) == [manifest_key("c", 0, 5)]  # the root before is still kept, and what it names
    assert deleted(after) == [manifest_key("c", 0, 4), manifest_key("c", 0, 5)]


def test_the_references_of_roots_are_those_of_all_and_the_layout_of_the_newest() -> None:
    damaged = frozenset({root_key("x", 0, 7)})
    found = references_of([root(90, Layout(1, 2), 1, 1), root(50, Layout(0, 1), 4)], damaged, {})
    names = {manifest_key("c", 0, 4), manifest_key("c", 1, 1), manifest_key("c", 2, 1)}
    assert found == RootReferences(frozenset(names), {"c": 1}, frozenset({"x"}), {}, damaged)


def with_log(position: int, layout: Layout, *covers: int, epoch: int = 1) -> Root:
    pointers: list[Pointer | None] = [Pointer(1, "h", each) if each else None for each in covers]
    return make_root("c", epoch, position, layout, pointers, "test", 0.0, with_log=True)


def test_the_roots_before_those_that_lean_are_kept_up_to_one_that_restores_by_itself() -> None:
    found = [root_info(0, position, 10.0 + position) for position in (10, 20)]
    found += [root_info(epoch, 30 * epoch, 40.0) for epoch in (1, 2)]
    leaning = {found[2].key, found[3].key}
    plan = plan_roots(found, {"c"}, NOW_S, leaning)
    assert (plan.kept, plan.deleted) == ([info.key for info in found[1:]], [found[0].key])
    later = [*found, root_info(2, 70, 41.0)]
    assert plan_roots(later, {"c"}, NOW_S, leaning).kept == [later[-1].key]


def test_the_log_is_kept_that_a_restoration_to_a_root_with_log_reads() -> None:
    layout = Layout(0, 2)
    plain, leans = root(20, layout, 1, 1), with_log(50, layout, 40, 0)
    found = references_of([plain, leans], frozenset(), {("c", 0): Pointer(9, "h", 90), ("c", 1): Pointer(9, "h", 95)})
    assert found.leaning == {leans.key}
    assert found.logs == {("c", 0): (20, 50), ("c", 1): (1, 50)}
    later = make_root("c", 1, 90, layout, [None, None], "test", 0.0)
    assert references_of([plain, leans, later], frozenset(), {}).logs == {}


def test_of_a_single_shard_a_manifest_that_covers_a_root_with_log_is_as_good_as_a_later_root() -> None:
    leans = with_log(50, Layout(0, 1), 40)
    for covers, logs in ((49, {("c", 0): (40, 50)}), (50, {})):
        found = references_of([leans], frozenset(), {("c", 0): Pointer(2, "h", covers)})
        assert (found.logs, bool(found.leaning)) == (logs, bool(logs))
