"""`polychrome backup` and `polychrome restore`: what they take, what they print, their exit codes.

Results go to standard output, as lines for people or, with `--json`, as one JSON object. Progress goes to standard
error.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime
import json
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from polychrome.backup.archive import Archive
from polychrome.backup.model import Backup, CollectionBackup, is_name
from polychrome.backup.put_back import Restorer
from polychrome.backup.take import Taker
from polychrome.location import LocationError, add_location, locate, url_of
from polychrome.progress import Progress
from shared.catalog import Catalog, Cluster, Collection
from shared.catalog.journal import open_journal
from shared.catalog.removal import Removal
from shared.errors import InvalidArgument, NotFound, PolychromeError, Unavailable
from shared.log.forks import Forks
from shared.log.jobs import Jobs
from shared.log.lifecycle import Lifecycle
from shared.log.log import Log
from shared.objects.open import open_store
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys

DONE: Final = 0
INCOMPLETE: Final = 1
"""Exit code: the backup counts, but lacks collections whose data is damaged."""
FAILED: Final = 2
"""Exit code: nothing was done, or not all of what was asked for; the message says what."""

Answer = tuple[dict[str, Any], list[str], int]
"""The result of a command: for --json, for people, its exit code."""


def add_backup(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome backup`."""
    parser.usage = "polychrome backup DEST [options] | backup list DEST | backup prune DEST --keep N"
    parser.add_argument("words", nargs="+", metavar="[list|prune] DEST", help="a directory, or s3://bucket/prefix")
    text = "back up this collection alone: its name, tenant/database/name, or id; may be repeated"
    parser.add_argument("--collection", action="append", default=[], metavar="C", help=text)
    parser.add_argument("--keep", type=_positive, metavar="N", help="with prune: how many of the newest backups stay")
    parser.add_argument("--ignore-running", action="store_true", help="with prune: although a backup seems to be taken")
    _add_common(parser)
    parser.set_defaults(run=_run_backup)


def add_restore(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome restore`."""
    parser.add_argument("source", metavar="SRC", help="where backups are: a directory, or s3://bucket/prefix")
    text = "this backup, by its name in `polychrome backup list` (default: the newest one that has what is asked for)"
    parser.add_argument("--backup", type=_backup_name, metavar="NAME", help=text)
    text = "as of this moment, ISO 8601: 2026-11-30T18:45:00Z"
    parser.add_argument("--at", type=_moment_s, metavar="TIME", dest="at_s", help=text)
    text = "restore this collection alone: its name, tenant/database/name, or id"
    parser.add_argument("--collection", metavar="C", help=text)
    parser.add_argument("--as", dest="new_name", metavar="NAME", help="with --collection: under this name")
    _add_common(parser)
    parser.set_defaults(run=_run_restore)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_location(parser)
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def _run_backup(arguments: argparse.Namespace) -> int:
    match arguments.words:
        case ["list", place]:
            work = _list(place)
        case ["prune", place] if arguments.keep is not None:
            work = _prune(place, arguments.keep, ignore_running=arguments.ignore_running)
        case ["prune", _]:
            return _complain("prune needs --keep N")
        case [place]:
            work = _take(place, arguments)
        case _:
            return _complain("give one destination")
    return _print(work, as_json=arguments.json)


def _run_restore(arguments: argparse.Namespace) -> int:
    if arguments.new_name is not None and arguments.collection is None:
        return _complain("--as needs --collection")
    return _print(_restore(arguments), as_json=arguments.json)


def _print(work: Coroutine[Any, Any, Answer], *, as_json: bool) -> int:
    try:
        answer, lines, code = asyncio.run(work)
    except (PolychromeError, LocationError, ValueError) as error:
        return _complain(str(error))
    for line in [json.dumps(answer)] if as_json else lines:
        print(line, flush=True)
    return code


def _complain(problem: str) -> int:
    print(f"polychrome: {problem}", file=sys.stderr)
    return FAILED


# The commands


async def _take(place: str, arguments: argparse.Namespace) -> Answer:
    async with _open_cluster(arguments.data_dir) as cluster, open_store(url_of(place)) as destination:
        if url_of(place).rstrip("/") == cluster.bucket_url.rstrip("/"):
            raise InvalidArgument("a backup does not belong into the cluster's own bucket")
        archive = Archive(destination, Progress("copied"))
        wanted = set(arguments.collection)
        taker = Taker(
            cluster.catalog, cluster.log, cluster.objects, archive, SystemClock(),
            lambda collection: not wanted or bool(wanted & _names(collection)),
        )  # fmt: skip
        backup = await taker.take(cluster.mark)
        missing = wanted - {name for collection in backup.collections for name in _names(collection)} - {*backup.failed}
        if missing:
            raise NotFound(f"there is no collection {', '.join(sorted(missing))}; the others are in {backup.name}")
    answer = {
        **_described(backup),
        "objects_copied": archive.copied,
        "bytes_copied": archive.copied_bytes,
        "objects_reused": archive.reused,
    }
    lines = [
        (
            f"backup {backup.name}: {len(backup.collections)} collections, {archive.copied_bytes:,} bytes copied, "
            f"{archive.reused} objects were there already"
        ),
        *(f"damaged, not in the backup: {collection}: {why}" for collection, why in backup.failed.items()),
    ]
    return answer, lines, INCOMPLETE if backup.failed else DONE


async def _list(place: str) -> Answer:
    async with open_store(url_of(place)) as destination:
        archive = Archive(destination)
        found = [_described(await archive.read(name)) for name in await archive.names()]
    lines = [f"{each['backup']}  {each['collections']:>6} collections  {each['bytes']:>16,} bytes" for each in found]
    return {"backups": found}, lines or [f"there is no backup in {place}"], DONE


async def _prune(place: str, keep: int, *, ignore_running: bool) -> Answer:
    async with open_store(url_of(place)) as destination:
        archive = Archive(destination)
        running = await archive.running()
        if running and not ignore_running:
            raise Unavailable(
                f"the backup {running[0]} is being taken, or was given up: --ignore-running if nobody takes it any more"
            )
        doomed = (await archive.names())[:-keep]
        removed = await archive.prune(doomed)
    return {"pruned": doomed, "objects_removed": removed}, [f"pruned {len(doomed)} backups, {removed} objects"], DONE


async def _restore(arguments: argparse.Namespace) -> Answer:
    async with _open_cluster(arguments.data_dir) as cluster, open_store(url_of(arguments.source)) as source:
        archive = Archive(source, Progress("restored"))
        name = arguments.backup or await _newest(archive, arguments.at_s)
        backup = await archive.read(name)
        names = _chosen(backup, arguments.collection, arguments.new_name)
        restorer = Restorer(
            cluster.catalog, cluster.lifecycle, cluster.forks, cluster.removal, cluster.jobs, cluster.objects, archive,
            SystemClock(), cluster.mark,
        )  # fmt: skip
        ids = await restorer.restore(backup, names, arguments.at_s)
    detached = [each.path for each in backup.collections if each.id in ids and each.function is not None]
    lines = [f"restored {len(ids)} collections from {backup.name}"]
    lines += [f"{path} was the output of a function, which is not attached any more" for path in detached]
    return {"backup": backup.name, "ids": ids, "detached": detached}, lines, DONE


# What they need


@dataclass(frozen=True, slots=True)
class _OpenCluster:
    """The parts of a running cluster that backups are made of."""

    mark: Cluster
    bucket_url: str
    objects: ObjectStore
    catalog: Catalog
    log: Log
    lifecycle: Lifecycle
    forks: Forks
    removal: Removal
    jobs: Jobs


@asynccontextmanager
async def _open_cluster(data_dir: Path) -> AsyncIterator[_OpenCluster]:
    """Raises LocationError, Unavailable."""
    location = locate(data_dir)
    keys = Keys(location.redis_prefix)
    async with (
        open_store(location.bucket_url) as objects,
        open_verified_redis(location.redis_url, keys) as redis,
        open_journal(redis, keys, objects) as journal,
    ):
        catalog = Catalog(redis, keys, journal)
        mark = await catalog.mark.read()
        if mark is None:
            raise Unavailable("the cluster is not open yet: its log service has to compare Redis with the bucket first")
        yield _OpenCluster(
            mark, location.bucket_url, objects, catalog, Log(redis, keys), Lifecycle(redis, keys), Forks(redis, keys),
            Removal(redis, keys, journal), Jobs(redis, keys),
        )  # fmt: skip


async def _newest(archive: Archive, at_s: float | None) -> str:
    """The name of the newest backup; with a time, of the first one that was begun later, whose log reaches back, or of
    the newest before it. Raises NotFound.
    """
    names = await archive.names()
    if not names:
        raise NotFound("there is no backup")
    if at_s is not None:
        for name in names:
            if (await archive.read(name)).begun_s >= at_s:
                return name
    return names[-1]


def _chosen(backup: Backup, wanted: str | None, new_name: str | None) -> dict[str, str]:
    """The collections to restore, by id, with their names. Raises NotFound, InvalidArgument."""
    if wanted is None:
        return {collection.id: collection.name for collection in backup.collections}
    found = [collection for collection in backup.collections if wanted in _names(collection)]
    if not found:
        raise NotFound(f"backup {backup.name} has no collection {wanted}")
    if len(found) > 1:
        raise InvalidArgument(f"{wanted} is the name of several: {', '.join(each.path for each in found)}")
    return {found[0].id: new_name or found[0].name}


def _names(collection: Collection | CollectionBackup) -> set[str]:
    """The words that name the collection on the command line."""
    return {collection.id, collection.name, f"{collection.tenant}/{collection.database}/{collection.name}"}


def _described(backup: Backup) -> dict[str, Any]:
    stored = {file.key: file.bytes for file in backup.stored()}
    return {
        "backup": backup.name,
        "cluster": backup.cluster,
        "begun_s": backup.begun_s,
        "ended_s": backup.ended_s,
        "collections": len(backup.collections),
        "bytes": sum(stored.values()),
        "failed": backup.failed,
    }


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a number, 1 or more")
    return int(text)


def _backup_name(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a backup, such as 20261130T184501.250Z")
    return text


def _moment_s(text: str) -> float:
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment such as 2026-11-30T18:45:00Z") from error
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text!r} names no time zone: end it with Z for UTC")
    return moment.timestamp()
