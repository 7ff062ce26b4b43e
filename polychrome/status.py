"""`polychrome status`: the processes of a cluster and their health, by the membership in Redis and by each process's
admin endpoint; the rebuilds that are under way; what was found damaged.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from polychrome.local.datadir import ProcessEntry, Register, read_register
from polychrome.local.plan import START_ORDER
from polychrome.local.process import is_ready
from polychrome.local.redis_server import problem_of
from polychrome.local.space import full_disks
from shared.catalog.cluster import ClusterMark
from shared.catalog.damage import Damage, Damages
from shared.cluster.membership import Member, Membership
from shared.errors import PolychromeError
from shared.log.jobs import Jobs
from shared.log.rebuild import Rebuilds
from shared.process.config import ROLES
from shared.redis.client import open_redis
from shared.redis.keys import Keys

NONE: Final = "-"


@dataclass(frozen=True, slots=True)
class StatusLine:
    """A row of the table: a process. `address` is the one that it announces, `admin` that of its admin endpoint; "-"
    where it has none, or where it is not known here. `health` is "ready", "draining" or "not ready".
    """

    role: str
    name: str
    address: str
    admin: str
    health: str


class Rebuilding(NamedTuple):
    """A collection that is getting more shards, and how far that is, for people."""

    collection: str
    progress: str


class Lost(msgspec.Struct, frozen=True):
    """Positions [first, end) of a collection that the last loss of Redis cost, as far as it was witnessed;
    `acknowledged` where clients had been told that they are stored.
    """

    collection: str
    first: int
    end: int
    acknowledged: bool


class LossReport(msgspec.Struct, frozen=True):
    """The part of the log service's last report that is shown."""

    at_s: float = 0.0
    lost: list[Lost] = []


_REPORT: Final = msgspec.json.Decoder(LossReport)


class Answers(NamedTuple):
    """The answers of Redis: members by role, rebuilds, the registry of damage, and the last report of a loss."""

    members: dict[str, list[Member]]
    rebuilds: list[Rebuilding]
    damages: list[Damage]
    report: LossReport = LossReport()


NO_ANSWERS: Final = Answers({}, [], [])


def status(data_dir: Path, say: Callable[[str], None], *, as_json: bool = False) -> int:
    """Shows the processes of the cluster in `data_dir`, or of the one at REDIS_URL, as a table or as one JSON object.
    Returns the exit code: 0 when all processes that are known are ready and nothing is damaged.
    """
    register = read_register(data_dir)
    redis_url = os.environ.get("REDIS_URL") or (register.redis_url if register else None)
    url = register.url if register else None
    problems = local_problems(register) if register else []

    def nothing_known(reason: str) -> int:
        shown = [to_json(url, [], NO_ANSWERS, [*problems, reason])]
        for line in shown if as_json else [*(f"problem  {each}" for each in problems), reason]:
            say(line)
        return 1

    if redis_url is None:
        return nothing_known(
            f"no cluster is running in {data_dir} (--data-dir names another), and there is no REDIS_URL"
        )
    if (problem := problem_of(redis_url)) is not None:
        return nothing_known(f"Redis does not answer: {problem}")
    prefix = register.redis_prefix if register else os.environ.get("POLYCHROME_REDIS_PREFIX", "pc")
    try:
        answers = asyncio.run(_ask(redis_url, prefix))
    except PolychromeError as error:
        return nothing_known(f"the membership cannot be read: {error}")
    lines = processes(register.processes if register else [], answers.members, is_ready)
    for line in [to_json(url, lines, answers, problems)] if as_json else to_text(url, lines, answers, problems):
        say(line)
    return 0 if all(line.health == "ready" for line in lines) and not answers.damages and not problems else 1


def local_problems(register: Register) -> list[str]:
    """Sentences for people about faults of this machine: full disks, and those that the supervisor wrote down."""
    full = full_disks(map(Path, register.reserves), map(Path, register.watched))
    return full + register.problems


def to_text(url: str | None, lines: list[StatusLine], answers: Answers, problems: list[str]) -> list[str]:
    """The lines for people."""
    shown = [f"url  {url}"] if url else []
    shown += [f"problem  {problem}" for problem in problems]
    shown += table(lines)
    shown += [f"rebuild  {rebuilding.collection}  {rebuilding.progress}" for rebuilding in answers.rebuilds]
    return (
        shown
        + [
            f"damaged  {damage.name}  {damage.what}; {damage.doing} (since {_time_of(damage.found_s)}, by {damage.by})"
            for damage in answers.damages
        ]
        + [
            f"lost  {lost.collection}  positions {lost.first} to {lost.end - 1}"
            f"{', acknowledged' if lost.acknowledged else ''} (at the restart of {_time_of(answers.report.at_s)})"
            for lost in answers.report.lost
        ]
    )


def to_json(url: str | None, lines: list[StatusLine], answers: Answers, problems: list[str]) -> str:
    """A JSON object with the members `url`, `problems`, `processes`, `rebuilds`, `damaged` and `lost`; times in seconds
    since the epoch.
    """
    shown = {
        "url": url,
        "problems": problems,
        "processes": [dataclasses.asdict(line) for line in lines],
        "rebuilds": [rebuilding._asdict() for rebuilding in answers.rebuilds],
        "damaged": answers.damages,
        "lost": answers.report.lost,
    }
    return msgspec.json.format(msgspec.json.encode(shown)).decode()


def _time_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def _ask(redis_url: str, prefix: str) -> Answers:
    async with open_redis(redis_url) as redis:
        keys = Keys(prefix)
        members = {role: await Membership(redis, keys, role).members() for role in ROLES}
        rebuilding = await Jobs(redis, keys).rebuilds()
        progress = [(one, await Rebuilds(redis, keys).progress(one)) for one in rebuilding]
        rebuilds = [Rebuilding(one, text) for one, text in progress if text]
        text = await ClusterMark(redis, keys).read_report()
        report = _REPORT.decode(text) if text else LossReport()
        return Answers(members, rebuilds, await Damages(redis, keys).all(), report)


def processes(
    local: Sequence[ProcessEntry], members: Mapping[str, Sequence[Member]], ready: Callable[[str], bool]
) -> list[StatusLine]:
    """The processes in the register, each with its readiness (`ready` asks an admin endpoint), then those that only the
    membership knows.
    """
    known = {member.id: member for announced in members.values() for member in announced}
    lines = []
    for entry in local:
        if entry.admin is None:
            continue
        member = known.pop(entry.id, None) if entry.id is not None else None
        health = _health(member) if ready(entry.admin) else "not ready"
        address = member.address if member else NONE
        lines.append(StatusLine(entry.role, f"{entry.name} (pid {entry.pid})", address, entry.admin, health))
    return lines + [
        StatusLine(role, member.id, member.address, NONE, _health(member))
        for role in START_ORDER
        for member in members.get(role, ())
        if member.id in known
    ]


def _health(member: Member | None) -> str:
    return "draining" if member is not None and member.draining else "ready"


def table(lines: list[StatusLine]) -> list[str]:
    """The lines of a table with aligned columns, its head included."""
    rows = [
        ("role", "process", "address", "admin", "health"),
        *((line.role, line.name, line.address, line.admin, line.health) for line in lines),
    ]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
