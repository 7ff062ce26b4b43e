from polychrome.datadir import ProcessEntry
from polychrome.status import StatusLine, processes, table
from shared.membership import Member

LOCAL = [
    ProcessEntry("redis", "redis", 1, None),
    ProcessEntry("compactor-1", "compactor", 2, "127.0.0.1:20"),
    ProcessEntry("queryworker-1", "queryworker", 3, "127.0.0.1:30"),
]


def test_a_local_process_and_its_announcement_are_one_line() -> None:
    members = {"queryworker": [Member("queryworker-host-3", "10.0.0.1:9")]}
    assert processes(LOCAL, members, lambda _: True) == [
        StatusLine("compactor", "compactor-1 (pid 2)", "-", "127.0.0.1:20", "ready"),
        StatusLine("queryworker", "queryworker-1 (pid 3)", "10.0.0.1:9", "127.0.0.1:30", "ready"),
    ]


def test_processes_of_other_machines_are_known_by_their_announcements() -> None:
    members = {"queryworker": [Member("queryworker-far-77", "10.0.0.2:9", draining=True)]}
    assert processes([], members, lambda _: True) == [
        StatusLine("queryworker", "queryworker-far-77", "10.0.0.2:9", "-", "draining")
    ]


def test_a_process_that_does_not_answer_is_not_ready() -> None:
    assert [line.health for line in processes(LOCAL, {}, lambda admin: admin.endswith("20"))] == ["ready", "not ready"]


def test_columns_are_aligned() -> None:
    assert table([StatusLine("a", "bb", "ccc", "dddd", "eeeee")]) == [
        "role  process  address  admin  health",
        "a     bb       ccc      dddd   eeeee",
    ]
