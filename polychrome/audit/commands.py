"""`polychrome audit verify` and `polychrome audit search`: what they take, what they print, their exit codes."""

from __future__ import annotations

import argparse
import asyncio
import heapq
from collections.abc import Callable
from typing import Final

from polychrome.answering import (
    DAMAGED,
    NOT_DONE,
    WHOLE,
    add_json,
    complain,
    done_or_complain,
    parse_count,
    parse_moment,
    say,
    show,
)
from polychrome.audit.prove import AuditReport, prove_audit
from polychrome.location import add_location, bucket_url, existing_url
from polychrome.progress import Progress
from shared.objects.open import open_store
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.process.clock import SystemClock
from shared.tenancy.audit import AuditOutcome, Entry, Gap, moment_of
from shared.tenancy.audit_search import AuditQuery, parts_between

LIMIT: Final = 1000
"""Events that a search shows unless it is told otherwise."""


def add_audit(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome audit`."""
    commands = parser.add_subparsers(required=True, metavar="verify|search")
    prove = commands.add_parser("verify", help="prove that no line of an audit log was changed, removed or added")
    _add_place(prove, _verify)
    search = commands.add_parser("search", help="show events of the audit logs, the newest last")
    search.add_argument("--tenant", metavar="T", help="what was done to this tenant, or by its keys and users")
    search.add_argument("--actor", metavar="A", help="by this key (its id), user, subject, or kind, such as bootstrap")
    text = "an action such as db:delete_database, or a part of it: db, delete_database"
    search.add_argument("--action", metavar="A", help=text)
    search.add_argument("--outcome", choices=[outcome.value for outcome in AuditOutcome], help="of this outcome")
    search.add_argument("--from", dest="from_s", type=parse_moment, metavar="TIME", help="from here on, ISO 8601")
    search.add_argument("--to", dest="to_s", type=parse_moment, metavar="TIME", help="to here")
    text = "the newest N of them (default: %(default)s)"
    search.add_argument("--limit", type=parse_count, default=LIMIT, metavar="N", help=text)
    _add_place(search, _search)


def _add_place(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], int]) -> None:
    text = "a directory or s3://bucket/prefix (default: that of the cluster)"
    parser.add_argument("bucket", nargs="?", metavar="BUCKET", help=text)
    add_location(parser)
    add_json(parser)
    parser.set_defaults(run=run)


def _place(arguments: argparse.Namespace) -> str:
    """Raises LocationError."""
    return existing_url(arguments.bucket) if arguments.bucket is not None else bucket_url(arguments.data_dir)


# Verify


def _verify(arguments: argparse.Namespace) -> int:
    report = done_or_complain("audit verify", lambda: asyncio.run(_proved(arguments)))
    if report is None:
        return NOT_DONE
    if not (report.parts or report.found):
        return complain("audit verify", "there is no audit log in the bucket")
    show(report, report_lines(report), as_json=arguments.json)
    return DAMAGED if report.found else WHOLE


async def _proved(arguments: argparse.Namespace) -> AuditReport:
    async with open_store(_place(arguments)) as objects:
        return await prove_audit(objects, SystemClock(), Progress("read"))


def report_lines(report: AuditReport) -> list[str]:
    """The report for people."""
    lines = [f"damaged  {finding.name}  {finding.what}" for finding in report.findings]
    if report.found > len(report.findings):
        lines.append(f"and {report.found - len(report.findings)} more")
    lines += [f"not closed  {chain}: its process was killed, or parts that no heads have seen are missing"
              for chain in report.unclosed]  # fmt: skip
    if report.unseen:
        lines.append(f"not seen  {report.unseen} parts are not in the heads: does a log service run?")
    if report.lost:
        lines.append(f"lost  {report.lost} events, as the logs say themselves: the bucket took none for too long")
    lines.append(
        f"read  {report.chains} chains, {report.parts} parts, {report.entries} events, {report.bytes:,} bytes; "
        f"heads of {report.heads or 'none yet'}"
    )
    lines.append(f"damaged: {report.found} things" if report.found else "whole")
    return lines


# Search


def _search(arguments: argparse.Namespace) -> int:
    found = done_or_complain("audit search", lambda: asyncio.run(_found(arguments)))
    if found is None:
        return NOT_DONE
    show(found, map(event_line, found), as_json=arguments.json)
    return WHOLE


async def _found(arguments: argparse.Namespace) -> list[Entry]:
    query = AuditQuery(
        tenant=arguments.tenant,
        actor=arguments.actor,
        action=arguments.action,
        outcome=None if arguments.outcome is None else AuditOutcome(arguments.outcome),
        since=None if arguments.from_s is None else moment_of(arguments.from_s),
        until=None if arguments.to_s is None else moment_of(arguments.to_s),
    )
    async with open_store(_place(arguments)) as objects:
        return await newest(objects, query, arguments.limit)


async def newest(objects: ObjectStore, query: AuditQuery, limit: int) -> list[Entry]:
    """The newest `limit` of the entries that are wanted, the oldest of them first. Raises Unavailable."""
    kept: list[tuple[str, int, Entry]] = []
    number = 0
    async for part in parts_between(objects, query.since, query.until):
        try:
            data = await objects.get(part.key)
        except ObjectNotFound:  # too old, and deleted meanwhile
            continue
        for entry in query.found_in(data):
            number += 1
            heapq.heappush(kept, (entry.time, number, entry))
            if len(kept) > limit:
                heapq.heappop(kept)
    if number > limit:
        say(f"polychrome audit search: {number} events were found; the newest {limit} are shown (--limit)")
    return [entry for _, _, entry in sorted(kept, key=lambda each: each[:2])]


def event_line(entry: Entry) -> str:
    """An entry for people."""
    if isinstance(entry, Gap):
        return f"{entry.time}  {entry.lost} events are lost since {entry.since}"
    actor = entry.actor
    who = " ".join(filter(None, (actor.kind, actor.id, f"of {actor.tenant}" if actor.tenant else "", entry.address)))
    where = "/".join(filter(None, (entry.tenant, entry.database, entry.collection, entry.subject)))
    what = ",".join(entry.actions) or "-"
    times = f"  x{entry.count}" if entry.count > 1 else ""
    outcome = f"{entry.outcome} {entry.status or ''}".rstrip()
    how = f"{entry.method} {entry.route}".lstrip()
    return f"{entry.time}  {outcome}  {who}  {what}  {how}  {where}  {entry.request}{times}".rstrip()
