"""`polychrome repair`: what it takes, what it prints, its exit codes."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import tempfile
from pathlib import Path
from typing import Final

import msgspec

from polychrome.answering import DAMAGED, NOT_DONE, WHOLE, add_json, done_or_complain, say, show
from polychrome.audited import write_command
from polychrome.location import LocationError, existing_url
from polychrome.progress import Progress
from polychrome.verify.bucket import Sample
from polychrome.verify.commands import (
    Verified,
    add_place,
    line_of,
    open_place,
    verify,
)
from polychrome.verify.model import Finding
from polychrome.verify.repair import Remedy, Repairer, RepairStep, RepairStores
from shared.catalog.damage import DamageKind, Damages
from shared.objects.open import open_store
from shared.process.clock import SystemClock

WAIT_S: Final = 60.0


class Repaired(msgspec.Struct, frozen=True):
    """The result of a repair: the steps, whether they were done or only planned, and whether damage is left that is
    needed now. `cleared` counts the names in the registry of damage that turned out to be whole.
    """

    steps: list[RepairStep]
    done: bool
    damaged: bool
    cleared: int = 0


def add_repair(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome repair`."""
    add_place(parser, bucket_alone=False)
    text = "take copies from here: a copy of the bucket, or a destination of polychrome backup"
    parser.add_argument("--from", dest="copies", metavar="COPIES", help=text)
    parser.add_argument("--yes", action="store_true", help="do it; without, it is only said what would be done")
    text = "skip damaged log entries of which there is no copy: their operations are lost"
    parser.add_argument("--skip", action="store_true", help=text)
    text = "longest time to wait for segments to be rewritten, in seconds (default: %(default)s)"
    parser.add_argument("--wait", type=float, default=WAIT_S, metavar="S", help=text)
    add_json(parser)
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    repaired = done_or_complain("repair", lambda: asyncio.run(_repair(arguments)))
    if repaired is None:
        return NOT_DONE
    show(repaired, repair_lines(repaired), as_json=arguments.json)
    return DAMAGED if repaired.damaged else WHOLE


async def _repair(arguments: argparse.Namespace) -> Repaired:
    async with contextlib.AsyncExitStack() as stack:
        place = await stack.enter_async_context(open_place(arguments, say, load_stopped=False))
        if place.redis is None:
            raise LocationError("a repair needs the running cluster: its Redis cannot be reached")
        copies = None
        if arguments.copies is not None:
            copies = await stack.enter_async_context(open_store(existing_url(arguments.copies)))
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="polychrome-repair-", dir=arguments.scratch))
        if arguments.yes:
            await write_command(place.objects, SystemClock(), "repair")
        stores = RepairStores(place.objects, place.redis, place.keys, copies)
        repairer = Repairer(stores, Path(folder), SystemClock(), skip=arguments.skip)
        return await repair(place, repairer, arguments.scratch, yes=arguments.yes, wait_s=arguments.wait)


async def repair(place: Verified, repairer: Repairer, scratch: Path | None, *, yes: bool, wait_s: float) -> Repaired:
    """Verifies, plans, and with `yes` does what was planned, waits for it, and verifies again; goes on with what shows
    only then, as the files of a segment do once its manifest is back. Raises Unavailable.
    """
    report = await verify(place, Sample(1.0), scratch, Progress("read"))
    steps = await repairer.plan(report)
    if not yes:
        return Repaired(steps, done=False, damaged=report.damaged)
    assert place.redis is not None
    damages = Damages(place.redis, place.keys)
    tried = dict[str, RepairStep]()
    while True:
        done = await repairer.do(steps, wait_s)
        tried |= {step.finding.name: step for step in done}
        report = await verify(place, Sample(1.0), scratch, Progress("read"))
        steps = [step for step in await repairer.plan(report) if step.finding.name not in tried]
        if not steps or not any(step.done for step in done):
            break
    left = {finding.name for finding in report.findings}
    whole = [name for name in await damages.names() if name not in left and report.found == len(report.findings)]
    cleared = await damages.clear(whole) if whole else 0
    return Repaired([*tried.values(), *steps], done=True, damaged=report.damaged, cleared=cleared)


def _way_out(finding: Finding) -> str:
    """A sentence about what an operator can do where a repair can do nothing."""
    if finding.kind is DamageKind.ENTRY:
        return "--from a backup may have a copy; --skip passes over it, and gives its operations up"
    if finding.kind is DamageKind.ROOT:
        return "--from a copy of the bucket may have it; else the next round of compactions writes another one"
    if finding.collection:
        return (
            "--from a backup or a copy of the bucket may have it; else restore the collection under another name: "
            f"polychrome restore BACKUPS --collection {finding.collection} --as NAME"
        )
    return "--from a copy of the bucket may have it; else restore a backup into an empty cluster"


def repair_lines(repaired: Repaired) -> list[str]:
    """The result for people."""
    lines = []
    for step in repaired.steps:
        lines.append(line_of(step.finding))
        lines.append(f"    {step.remedy}" + (f": {step.outcome}" if step.outcome else ""))
        lines += [f"    lost: {step.lost}"] if step.lost else []
        lines += [f"    {_way_out(step.finding)}"] if step.remedy is Remedy.NOTHING or repaired.done > step.done else []
    if not repaired.steps:
        lines.append("nothing is damaged that is needed now")
    elif not repaired.done:
        lines.append("nothing was done: --yes does it")
    elif repaired.damaged:
        lines.append("damage is left")
    else:
        lines.append("repaired")
    return lines
