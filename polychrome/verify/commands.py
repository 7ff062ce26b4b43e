"""`polychrome verify`: what it takes, what it prints, its exit codes.

The result goes to standard output, as lines for people or, with `--json`, as one JSON object. Progress goes to standard
error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from redis.asyncio import Redis

from polychrome.answering import DAMAGED, NOT_DONE, WHOLE, add_json, complain, done_or_complain, say, show
from polychrome.local.redis_server import problem_of
from polychrome.location import LocationError, add_location, existing_url, locate
from polychrome.progress import Progress
from polychrome.verify.append_only import loaded_copy
from polychrome.verify.bucket import BucketProver, Sample, share_of
from polychrome.verify.cluster import ClusterProver
from polychrome.verify.erasures import ReceiptProver
from polychrome.verify.model import Finding, Ledger, Report
from shared.objects.open import open_store
from shared.objects.port import ObjectStore
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys

CLUSTERS_HAVE: Final = frozenset({"snapshots", "journal entries", "manifests", "roots"})
"""Things that the bucket of a cluster has some of: where all of them are missing, it is the bucket of none."""

MIB: Final = 1024 * 1024

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Verified:
    """The stores of a cluster that are verified; `redis` is None for a bucket alone. `findings` is what is known to be
    damaged in a server's files, `redis_problem` the reason why a cluster's Redis is not read.
    """

    objects: ObjectStore
    redis: Redis | None
    keys: Keys
    findings: Sequence[Finding] = ()
    redis_problem: str = ""


def add_verify(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome verify`."""
    add_place(parser)
    text = "read so many segments, or such a share (0.1), chosen at random; everything else is read whole"
    parser.add_argument("--sample", type=_sample, metavar="N", help=text)
    parser.add_argument("--seed", type=int, help="with --sample: another choice for another number (default: random)")
    add_json(parser)
    parser.set_defaults(run=_run_verify)


def add_place(parser: argparse.ArgumentParser, *, bucket_alone: bool = True) -> None:
    """Adds the arguments that say what is verified."""
    text = "a bucket alone, without its Redis: a directory or s3://bucket/prefix (default: that of the cluster)"
    if bucket_alone:
        parser.add_argument("bucket", nargs="?", metavar="BUCKET", help=text)
    else:
        parser.set_defaults(bucket=None)
    add_location(parser)
    text = "directory for files while they are read (default: the system's for temporary files)"
    parser.add_argument("--scratch", type=Path, metavar="DIR", help=text)


def _run_verify(arguments: argparse.Namespace) -> int:
    report = done_or_complain("verify", lambda: asyncio.run(_verify(arguments)))
    if report is None:
        return NOT_DONE
    if not report.redis and not CLUSTERS_HAVE & report.counts.keys():
        return complain("verify", _nothing_in(arguments))
    show(report, lines_of(report), as_json=arguments.json)
    return _exit_code(report)


def _nothing_in(arguments: argparse.Namespace) -> str:
    """The complaint about a bucket that is not a cluster's: a misspelt prefix must not count as whole."""
    if arguments.bucket is None:
        return "nothing of a cluster is in its bucket"
    problem = f"nothing of a cluster is in {arguments.bucket}"
    if Path(arguments.bucket, "objects").is_dir():
        problem += f"; a cluster's data directory is named by --data-dir {arguments.bucket}"
    return problem


def _exit_code(report: Report) -> int:
    """A whole bucket alone proves nothing of what Redis holds."""
    if report.damaged:
        return DAMAGED
    return NOT_DONE if report.redis_problem else WHOLE


async def _verify(arguments: argparse.Namespace) -> Report:
    async with open_place(arguments, say) as place:
        share = 1.0
        if arguments.sample is not None:
            share = arguments.sample if arguments.sample < 1 else await share_of(place.objects, int(arguments.sample))
        seed = arguments.seed if arguments.seed is not None else random.getrandbits(32)  # a choice, no secret
        return await verify(place, Sample(share, seed), arguments.scratch, Progress("read"))


async def verify(
    place: Verified, sample: Sample, scratch: Path | None, progress: Callable[[int], None] = lambda _: None
) -> Report:
    """Proves everything. `scratch` is a directory for files that are being read, None for the system's. Raises
    Unavailable.
    """
    began_s = time.monotonic()
    ledger = Ledger(progress)
    ledger.add(place.findings)
    cluster = None
    if place.redis is not None:
        cluster = ClusterProver(place.redis, place.keys, place.objects, ledger)
        await cluster.read_catalog()
    with tempfile.TemporaryDirectory(prefix="polychrome-verify-", dir=scratch) as folder:
        pointer_of = cluster.pointer_of if cluster is not None else None
        await BucketProver(place.objects, Path(folder), ledger, sample, pointer_of).prove()
        await ReceiptProver(place.objects, place.redis, place.keys, Path(folder), ledger).prove()
    if cluster is not None:
        await cluster.prove()
    return ledger.report(
        sampled=sample.share,
        redis=cluster is not None,
        redis_problem=place.redis_problem,
        seconds=time.monotonic() - began_s,
    )


@asynccontextmanager
async def open_place(arguments: argparse.Namespace, say: Say, *, load_stopped: bool = True) -> AsyncIterator[Verified]:
    """Opens what the arguments name: a bucket alone, or a cluster. Of a cluster that does not run, a server of our own
    loads a copy of the append-only file if `load_stopped`; else, and of one whose Redis cannot be reached, the bucket
    alone is opened, which is said. Raises LocationError, Unavailable.
    """
    if arguments.bucket is not None:
        async with open_store(existing_url(arguments.bucket)) as objects:
            yield Verified(objects, None, Keys())
        return
    try:
        location = locate(arguments.data_dir)
    except LocationError:
        async with _open_stopped(arguments, say, load_stopped) as place:
            yield place
        return
    keys = Keys(location.redis_prefix)
    if (problem := problem_of(location.redis_url)) is not None:
        say(f"the bucket alone is verified: {problem}")
        async with open_store(location.bucket_url) as objects:
            yield Verified(objects, None, keys, redis_problem=problem)
        return
    async with open_store(location.bucket_url) as objects, open_verified_redis(location.redis_url, keys) as redis:
        yield Verified(objects, redis, keys)


@asynccontextmanager
async def _open_stopped(arguments: argparse.Namespace, say: Say, load: bool) -> AsyncIterator[Verified]:
    """The cluster whose data are in a directory, and that does not run. Raises LocationError, Unavailable."""
    data = arguments.data_dir.resolve()
    if not (data / "objects").is_dir():
        raise LocationError(
            f"no cluster is running in {data}, and there are no data of one: name another by --data-dir, or by "
            "REDIS_URL and POLYCHROME_BUCKET_URL"
        )
    keys = Keys(os.environ.get("POLYCHROME_REDIS_PREFIX", "pc"))
    async with open_store((data / "objects").as_uri()) as objects:
        if not load or not (data / "redis" / "appendonlydir").is_dir():
            problem = "no cluster is running" if not load else f"no append-only file is in {data / 'redis'}"
            say(f"the bucket alone is verified: {problem}")
            yield Verified(objects, None, keys, redis_problem=problem)
            return
        async with loaded_copy(data / "redis", keys.prefix, arguments.scratch) as (redis, findings):
            yield Verified(objects, redis, keys, findings)


def lines_of(report: Report) -> list[str]:
    """The report for people."""
    lines = [line_of(finding) for finding in report.findings]
    if report.found > len(report.findings):
        lines.append(f"and {report.found - len(report.findings)} more")
    if report.orphans:
        size = report.orphan_bytes / MIB
        lines.append(
            f"orphans  {report.orphan_objects} objects of {size:.1f} MiB that nothing names: --json lists them"
        )
    counts = dict(report.counts)
    size = counts.pop("bytes", 0) / MIB
    read = ", ".join(f"{count} {name}" for name, count in counts.items())
    lines.append(
        f"read  {read}; {size:.1f} MiB in {report.seconds:.1f} s, {size / max(report.seconds, 1e-3):.0f} MiB/s"
    )
    if report.sampled < 1:
        lines.append(f"a sample: {report.sampled:.1%} of the segments were read")
    current = sum(finding.current for finding in report.findings)
    past = len(report.findings) - current
    if current:
        lines.append(f"damaged: {current} things that are needed now" + (f", and {past} of the past" if past else ""))
    else:
        lines.append("whole" + (f", but for {past} things of the past that nothing needs now" if past else ""))
        if report.redis_problem:
            lines[-1] = f"the bucket is {lines[-1]}; what Redis holds was not verified: {report.redis_problem}"
    return lines


def line_of(finding: Finding) -> str:
    """A finding for people."""
    line = f"{'damaged' if finding.current else 'past   '}  {finding.name}  {finding.what}"
    if finding.collection_name:
        line += f"; of {finding.tenant}/{finding.database}/{finding.collection_name}"
    if finding.positions is not None:
        first, end = finding.positions
        line += f" (positions {first} to {'?' if end is None else end - 1})"
    if finding.lost_rows:
        named = f": {', '.join(finding.lost_ids)}" if finding.lost_ids else ""
        more = ", .." if finding.lost_ids and finding.lost_rows > len(finding.lost_ids) else ""
        line += f"; {finding.lost_rows} records{named}{more}"
    return line


def _sample(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if value <= 0 or (value >= 1 and value != int(value)):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number of segments, or a share below 1")
    return value
