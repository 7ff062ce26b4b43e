import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from polychrome.local.datadir import ProcessEntry
from polychrome.local.plan import ClusterOptions, Stores, process_specs
from polychrome.local.process import free_port
from polychrome.loss_report import LINES_MAX, LossReport, Lost, Missing, RestoredState, SkippedEntry
from polychrome.status import (
    Answers,
    Rebuilding,
    StatusLine,
    processes,
    status,
    table,
    to_json,
    to_text,
)
from shared.catalog.damage import Damage, DamageKind
from shared.cluster.membership import Member
from shared.log.substitutes import Skipped, Substitutes
from shared.objects.directory import open_directory
from shared.objects.port import ObjectStore
from tests.logservice.restoring.test_epoch import World, world
from tests.redis_server import RedisServer, keys, redis, redis_server
from tests.shared.log.appending import append

__all__ = ["keys", "redis", "redis_server", "world"]

LOCAL = [
    ProcessEntry("redis", "redis", 1, None),
    ProcessEntry("compactor-1", "compactor", 2, "127.0.0.1:20", "compactor-1-host-ab12"),
    ProcessEntry("queryworker-1", "queryworker", 3, "127.0.0.1:30", "queryworker-1-host-ab12"),
    ProcessEntry("queryworker-2", "queryworker", 4, "127.0.0.1:40", "queryworker-2-host-ab12"),
]


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[ObjectStore]:
    async with open_directory(tmp_path / "bucket") as store:
        yield store


def test_a_local_process_and_its_announcement_are_one_line_and_another_clusters_is_its_own() -> None:
    members = {
        "queryworker": [
            Member("queryworker-1-host-ab12", "10.0.0.1:9"),
            Member("queryworker-1-host-cd34", "10.0.0.1:11"),
            Member("queryworker-2-host-ab12", "10.0.0.1:10", draining=True),
        ]
    }
    assert processes(LOCAL, members, lambda _: True) == [
        StatusLine("compactor", "compactor-1 (pid 2)", "-", "127.0.0.1:20", "ready"),
        StatusLine("queryworker", "queryworker-1 (pid 3)", "10.0.0.1:9", "127.0.0.1:30", "ready"),
        StatusLine("queryworker", "queryworker-2 (pid 4)", "10.0.0.1:10", "127.0.0.1:40", "draining"),
        StatusLine("queryworker", "queryworker-1-host-cd34", "10.0.0.1:11", "-", "ready"),
    ]


def test_the_register_holds_the_names_that_processes_announce() -> None:
    specs = process_specs(ClusterOptions(query_workers=2), Stores("redis://", "file:///", Path("scratch"), "ab12"))
    workers = [spec for spec in specs if spec.role == "queryworker"]
    assert [spec.id for spec in workers] == [spec.environ["POLYCHROME_PROCESS_ID"] for spec in workers]
    assert len({spec.id for spec in specs}) == len(specs)


def test_processes_of_other_machines_are_known_by_their_announcements() -> None:
    members = {"queryworker": [Member("queryworker-far-77", "10.0.0.2:9", draining=True)]}
    assert processes([], members, lambda _: True) == [
        StatusLine("queryworker", "queryworker-far-77", "10.0.0.2:9", "-", "draining")
    ]


def test_a_process_that_does_not_answer_is_not_ready() -> None:
    assert [line.health for line in processes(LOCAL, {}, lambda admin: admin.endswith("20"))] == [
        "ready",
        "not ready",
        "not ready",
    ]


def test_what_was_found_damaged_is_shown_to_people_and_to_programs() -> None:
    damage = Damage("c/0/log/7-0", DamageKind.ENTRY, "is bad", "reads are refused", "w1", 30.0, "c", 0, 10.5)
    answers = Answers({}, [Rebuilding("c2", "2 of 4 shards")], [damage])
    lines = [StatusLine("compactor", "compactor-1", "-", "127.0.0.1:20", "ready")]
    assert to_text("http://here", lines, answers, ["a disk is full"]) == [
        "url  http://here",
        "problem  a disk is full",
        *table(lines),
        "rebuild  c2  2 of 4 shards",
        "damaged  c/0/log/7-0  is bad; reads are refused (since 1970-01-01T00:00:10Z, by w1)",
    ]
    shown = orjson.loads(to_json(None, lines, answers, ["a disk is full"]))
    assert shown["problems"] == ["a disk is full"]
    assert shown["url"] is None
    assert shown["processes"][0]["name"] == "compactor-1"
    assert shown["rebuilds"] == [{"collection": "c2", "progress": "2 of 4 shards"}]
    [damaged] = shown["damaged"]
    assert {"name": "c/0/log/7-0", "kind": "entry", "found_s": 10.5, "by": "w1", "shard": 0}.items() <= damaged.items()


def test_what_the_last_loss_cost_is_shown_to_people_and_to_programs() -> None:
    lost = [Lost("c", 7, 10, acknowledged=True), Lost("d", 3, 4, acknowledged=False)]
    answers = Answers({}, [], [], LossReport(20.0, lost))
    assert to_text(None, [], answers, []) == [
        *table([]),
        "lost  c  positions 7 to 9, acknowledged (at the restart of 1970-01-01T00:00:20Z)",
        "lost  d  positions 3 to 3 (at the restart of 1970-01-01T00:00:20Z)",
    ]
    shown = orjson.loads(to_json(None, [], answers, []))
    assert shown["lost"][0] == {"collection": "c", "first": 7, "end": 10, "acknowledged": True}


def test_what_may_be_missing_after_the_last_loss_is_shown_to_people_and_to_programs() -> None:
    missing = [
        Missing("c", "shop", [41, 57], 60, 1000, "root"),
        Missing("d", "logs", [9], 9, 1000, "log"),
        Missing("e", "old", [5, 7], 7, 1000, "manifests", one_moment=False, damaged={"e/0/manifests/x": "is cut"}),
    ]
    restored = [RestoredState("f", "cars", ["head", "layout"], 30.0), RestoredState("g", "cats", [], 31.0)]
    report = LossReport(20.0, [], missing, ["h"], ["catalog/journal/y"], [], restored)
    skipped = [SkippedEntry("c", 1, Skipped("70-0", 70, 75, 40.0))]
    answers = Answers({}, [], [], report, skipped)
    at = "(at the restart of 1970-01-01T00:00:20Z)"
    written, gone = "what was written from position", "on may be missing, restored from its"
    assert to_text(None, [], answers, []) == [
        *table([]),
        f"missing  c  shop: {written} 41 {gone} root; positions below 60 were handed out {at}",
        (
            f"missing  e  old: {written} 5 {gone} manifests, its shards of different moments; positions below 7 were "
            f"handed out; damaged: e/0/manifests/x {at}"
        ),
        f"unlisted  h  the bucket has it, and no catalog lists it {at}",
        f"unread  catalog/journal/y  was damaged, and passed over {at}",
        "restored  f  cars: its state in Redis, of which head, layout were lost (at 1970-01-01T00:00:30Z)",
        "restored  g  cats: its state in Redis, of which a part of it was lost (at 1970-01-01T00:00:31Z)",
        "skipped  c/1  entry 70-0, among the positions 70 to 74, by an operator (at 1970-01-01T00:00:40Z)",
    ]
    shown = orjson.loads(to_json(None, [], answers, []))
    assert [each["collection"] for each in shown["missing"]] == ["c", "e"]
    assert shown["missing"][0]["covered"] == [41, 57]
    assert (shown["unlisted"], shown["unread"]) == (["h"], ["catalog/journal/y"])
    assert shown["restored"][0]["fields"] == ["head", "layout"]
    assert shown["skipped"] == [{"collection": "c", "shard": 1, "entry": "70-0", "first": 70, "end": 75, "at_s": 40.0}]


def test_of_very_many_losses_people_see_some_and_programs_all() -> None:
    report = LossReport(20.0, unlisted=[str(number) for number in range(LINES_MAX + 3)])
    answers = Answers({}, [], [], report)
    assert to_text(None, [], answers, [])[-1] == "unlisted  and 3 more: --json shows all"
    assert len(orjson.loads(to_json(None, [], answers, []))["unlisted"]) == LINES_MAX + 3


async def test_the_report_of_a_real_loss_and_what_was_skipped_are_read_from_redis(
    world: World, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    [made] = [each async for each in world.catalog.collections.all()]
    await append(world.log, made, ["a"])
    await world.restore()
    await append(world.log, made, ["b"])
    [entry] = (await world.log.read(made.id, 0)).entries
    await world.redis.delete(world.keys.log(made.id, 0))
    skipped = await Substitutes(world.redis, world.keys).skip(made.id, 0, entry.id)
    assert skipped is not None
    await world.images.write_report({**(await world.images.read_report() or {}), "unlisted": ["stranger"]}, "")
    monkeypatch.setenv("REDIS_URL", redis_server.url)
    monkeypatch.setenv("POLYCHROME_REDIS_PREFIX", world.keys.prefix)
    lines: list[str] = []
    await asyncio.to_thread(status, tmp_path, lines.append, as_json=True)
    shown = orjson.loads(lines[0])
    assert [(each["collection"], each["covered"]) for each in shown["missing"]] == [(made.id, [1])]
    assert shown["unlisted"] == ["stranger"]
    [one] = shown["skipped"]
    assert (one["collection"], one["shard"], one["entry"]) == (made.id, 0, entry.id)


def test_columns_are_aligned() -> None:
    assert table([StatusLine("a", "bb", "ccc", "dddd", "eeeee")]) == [
        "role  process  address  admin  health",
        "a     bb       ccc      dddd   eeeee",
    ]


def test_a_redis_that_does_not_answer_is_shown_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://:secret@127.0.0.1:{free_port()}/0")
    lines: list[str] = []
    assert status(tmp_path, lines.append) == 1
    [line] = lines
    assert line.startswith("Redis does not answer: ")
    assert "refused" in line
    assert "secret" not in line
    assert status(tmp_path, lines.append, as_json=True) == 1
    shown = orjson.loads(lines[1])
    assert [problem.startswith("Redis does not answer: ") for problem in shown["problems"]] == [True]
    assert shown["processes"] == []


def test_programs_are_told_that_no_cluster_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    lines: list[str] = []
    assert status(tmp_path, lines.append, as_json=True) == 1
    assert [problem.split(" in ")[0] for problem in orjson.loads(lines[0])["problems"]] == ["no cluster is running"]
