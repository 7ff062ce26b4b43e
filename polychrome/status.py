"""`polychrome status`: the processes of a cluster and their health, by the membership in Redis and by each process's
admin endpoint; the rebuilds that are under way; what was found damaged.
"""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from polychrome import answering
from polychrome.local.datadir import ProcessEntry, Register, read_register
from polychrome.local.plan import START_ORDER
from polychrome.local.process import is_ready
from polychrome.local.redis_server import problem_of
from polychrome.local.space import full_disks
from polychrome.loss_report import LossReport, SkippedEntry, decode_report, json_of, lines_of, time_of
from shared.catalog.cluster import ClusterMark
from shared.catalog.damage import Damage, Damages
from shared.cluster.membership import Member, Membership
from shared.errors import PolychromeError
from shared.log.jobs import Jobs
from shared.log.rebuild import Rebuilds
from shared.log.substitutes import Substitutes
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


class Answers(NamedTuple):
    """The answers of Redis: members by role, rebuilds, the registry of damage, the last report of a loss, and the log
    entries that an operator had skipped.
    """

    members: dict[str, list[Member]]
    rebuilds: list[Rebuilding]
    damages: list[Damage]
    report: LossReport = LossReport()
    skipped: Sequence[SkippedEntry] = ()


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
    shown += [
        f"damaged  {damage.name}  {damage.what}; {damage.doing} (since {time_of(damage.found_s)}, by {damage.by})"
        for damage in answers.damages
    ]
    return shown + lines_of(answers.report, answers.skipped)


def to_json(url: str | None, lines: list[StatusLine], answers: Answers, problems: list[str]) -> str:
    """A JSON object with the members `url`, `problems`, `processes`, `rebuilds` and `damaged`, and those of losses
    (`polychrome.loss_report`); times in seconds since the epoch.
    """
    shown = {
        "url": url,
        "problems": problems,
        "processes": [dataclasses.asdict(line) for line in lines],
        "rebuilds": [rebuilding._asdict() for rebuilding in answers.rebuilds],
        "damaged": answers.damages,
        **json_of(answers.report, answers.skipped),
    }
    return answering.json_of(shown)


async def _ask(redis_url: str, prefix: str) -> Answers:
    async with open_redis(redis_url) as redis:
        keys = Keys(prefix)
        members = {role: await Membership(redis, keys, role).members() for role in ROLES}
        rebuilding = await Jobs(redis, keys).rebuilds()
        progress = [(one, await Rebuilds(redis, keys).progress(one)) for one in rebuilding]
        rebuilds = [Rebuilding(one, text) for one, text in progress if text]
        report = decode_report(await ClusterMark(redis, keys).read_report())
        skipped = [SkippedEntry(*each) async for each in Substitutes(redis, keys).all_skipped()]
        return Answers(members, rebuilds, await Damages(redis, keys).all(), report, sorted(skipped))


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
