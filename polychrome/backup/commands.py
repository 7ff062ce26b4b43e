"""`polychrome backup` and `polychrome restore`: what they take, what they print, their exit codes.

Results go to standard output, as lines for people or, with `--json`, as one JSON object. Progress goes to standard
error.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from polychrome.answering import (
    DAMAGED,
    NOT_DONE,
    WHOLE,
    add_json,
    complain,
    done_or_complain,
    parse_count,
    parse_moment,
    show,
)
from polychrome.audited import write_command
from polychrome.backup.archive import Archive
from polychrome.backup.choice import chosen, is_suitable, kind_of, outdated, selected_ids
from polychrome.backup.model import Backup, CollectionBackup, is_name
from polychrome.backup.prove import prove
from polychrome.backup.put_back import Restorer
from polychrome.backup.survey import Place, places_in
from polychrome.backup.take import Taker
from polychrome.location import add_location, existing_url, locate, url_of
from polychrome.progress import Progress
from shared.catalog import Catalog, Cluster
from shared.catalog.journal import open_journal
from shared.catalog.removal import Removal
from shared.errors import InvalidArgument, NotFound, Unavailable
from shared.log.forks import Forks
from shared.log.jobs import Jobs
from shared.log.lifecycle import Lifecycle
from shared.log.log import Log
from shared.objects.open import open_store
from shared.objects.port import ObjectStore
from shared.process.clock import SystemClock
from shared.redis.fence import open_verified_redis
from shared.redis.keys import Keys

Answer = tuple[dict[str, Any], list[str], int]
"""The result of a command: for --json, for people, its exit code."""


def add_backup(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome backup`."""
    parser.usage = "polychrome backup DEST [options] | backup list|verify DEST | backup prune DEST --keep N"
    parser.add_argument(
        "words", nargs="+", metavar="[list|verify|prune] DEST", help="a directory, or s3://bucket/prefix"
    )
    text = "back up this collection alone: its name, tenant/database/name, or id; may be repeated"
    parser.add_argument("--collection", action="append", default=[], metavar="C", help=text)
    parser.add_argument("--keep", type=parse_count, metavar="N", help="with prune: how many of the newest backups stay")
    text = "with prune: do it although a backup seems to be running; for one that was killed"
    parser.add_argument("--ignore-running", action="store_true", help=text)
    _add_common(parser)
    parser.set_defaults(run=_run_backup)


def add_restore(parser: argparse.ArgumentParser) -> None:
    """The arguments of `polychrome restore`."""
    parser.add_argument("source", metavar="SRC", help="where backups are: a directory, or s3://bucket/prefix")
    text = (
        "this backup, by its name in `polychrome backup list` (default: the newest one that has the collection, "
        "without --collection the newest one of everything)"
    )
    parser.add_argument("--backup", type=_backup_name, metavar="NAME", help=text)
    text = "as of this moment, ISO 8601: 2026-11-30T18:45:00Z"
    parser.add_argument("--at", type=parse_moment, metavar="TIME", dest="at_s", help=text)
    text = "restore this collection alone: its name, tenant/database/name, or id"
    parser.add_argument("--collection", metavar="C", help=text)
    parser.add_argument("--as", dest="new_name", metavar="NAME", help="with --collection: under this name")
    _add_common(parser)
    parser.set_defaults(run=_run_restore)


def _add_common(parser: argparse.ArgumentParser) -> None:
    add_location(parser)
    add_json(parser)


def _run_backup(arguments: argparse.Namespace) -> int:
    match arguments.words:
        case ["list" | "verify" | "prune", _] if arguments.collection:
            return complain("backup", "--collection goes with taking a backup alone")
        case ["list", place] if arguments.keep is None:
            work = _list(place)
        case ["verify", place] if arguments.keep is None:
            work = _verify(place)
        case ["prune", place] if arguments.keep is not None:
            work = _prune(place, arguments.keep, ignore_running=arguments.ignore_running)
        case ["prune", _]:
            return complain("backup", "prune needs --keep N: how many of the newest backups stay")
        case ["list" | "verify" | "prune" as command]:
            return complain("backup", f"{command} needs a destination (a directory of that name is ./{command})")
        case [_] if arguments.keep is not None or arguments.ignore_running:
            return complain(
                "backup", "--keep and --ignore-running go with prune alone: polychrome backup prune DEST --keep N"
            )
        case [place]:
            work = _take(place, arguments)
        case words:
            return complain("backup", f"expected DEST, list DEST, verify DEST or prune DEST, got: {' '.join(words)}")
    return _print("backup", work, as_json=arguments.json)


def _run_restore(arguments: argparse.Namespace) -> int:
    if arguments.new_name is not None and arguments.collection is None:
        return complain("restore", "--as needs --collection")
    return _print("restore", _restore(arguments), as_json=arguments.json)


def _print(command: str, work: Coroutine[Any, Any, Answer], *, as_json: bool) -> int:
    done = done_or_complain(command, lambda: asyncio.run(work))
    if done is None:
        return NOT_DONE
    answer, lines, code = done
    show(answer, lines, as_json=as_json)
    return code


# The commands


async def _take(place: str, arguments: argparse.Namespace) -> Answer:
    async with _open_cluster(arguments.data_dir) as cluster, open_store(url_of(place)) as destination:
        if f"{url_of(place).rstrip('/')}/".startswith(f"{cluster.bucket_url.rstrip('/')}/"):
            raise InvalidArgument("a backup does not belong into the cluster's own bucket")
        selected = selected_ids(arguments.collection, await _collections(cluster.catalog))
        await write_command(cluster.objects, SystemClock(), "backup", ", ".join(arguments.collection) or "everything")
        archive = Archive(destination, Progress("copied"))
        taker = Taker(cluster.catalog, cluster.log, cluster.objects, archive, SystemClock(), selected)
        backup = await taker.take(cluster.mark)
        gone = (selected or set[str]()) - {collection.id for collection in backup.collections} - backup.failed.keys()
        if gone:
            raise NotFound(f"deleted while the backup was taken: {', '.join(gone)}; the others are in {backup.name}")
    answer = {
        **_described(backup),
        "objects_copied": archive.copied,
        "bytes_copied": archive.copied_bytes,
        "objects_reused": archive.reused,
    }
    lines = [
        (
            f"backup {backup.name}: {_counted(len(backup.collections))}, {archive.copied_bytes:,} bytes copied, "
            f"{archive.reused} objects were there already"
        ),
        *_lacking(backup),
    ]
    return answer, lines, DAMAGED if backup.failed else WHOLE


async def _list(place: str) -> Answer:
    async with open_store(existing_url(place)) as destination:
        archive = Archive(destination)
        found = [_described(await archive.read(name)) for name in await archive.names()]
    return {"backups": found}, [_listed(each) for each in found] or [f"there is no backup in {place}"], WHOLE


async def _verify(place: str) -> Answer:
    async with open_store(existing_url(place)) as destination:
        proof = await prove(Archive(destination, Progress("read")))
    if not proof.backups:
        raise NotFound(f"there is no backup in {place}")
    lines = [f"damaged  {each.what}; needed by {', '.join(each.backups)}" for each in proof.damaged]
    lines.append(f"read  {proof.backups} backups, {proof.objects} objects, {proof.bytes:,} bytes")
    lines.append(f"damaged: {len(proof.damaged)} objects" if proof.damaged else "whole")
    return msgspec.to_builtins(proof), lines, DAMAGED if proof.damaged else WHOLE


async def _prune(place: str, keep: int, *, ignore_running: bool) -> Answer:
    async with open_store(existing_url(place)) as destination:
        archive = Archive(destination)
        running = await archive.running()
        if running and not ignore_running:
            raise Unavailable(
                f"the backup {running[0]} is being taken, or was given up: --ignore-running if nobody takes it any more"
            )
        removed = outdated([kind_of(await archive.read(name)) for name in await archive.names()], keep)
        objects = await archive.prune(removed)
    lines = [f"pruned {len(removed)} backups, {objects} objects", *(f"pruned {name}" for name in removed)]
    return {"pruned": removed, "objects_removed": objects}, lines, WHOLE


async def _restore(arguments: argparse.Namespace) -> Answer:
    source_url = existing_url(arguments.source)
    async with _open_cluster(arguments.data_dir) as cluster, open_store(source_url) as source:
        archive = Archive(source, Progress("restored"))
        if arguments.backup is not None:
            backup = await archive.read(arguments.backup)
        else:
            backup = await _suitable(archive, arguments.source, arguments.collection, arguments.at_s)
        names = chosen(backup, arguments.collection, arguments.new_name)
        await write_command(cluster.objects, SystemClock(), "restore", f"{backup.name}: {', '.join(names.values())}")
        restorer = Restorer(
            cluster.catalog, cluster.lifecycle, cluster.forks, cluster.removal, cluster.jobs, cluster.objects, archive,
            SystemClock(), cluster.mark,
        )  # fmt: skip
        ids = await restorer.restore(backup, names, arguments.at_s)
    failed = {} if arguments.collection else backup.failed
    restored = [each for each in backup.collections if each.id in ids]
    detached = [each.path for each in restored if each.function is not None]
    lines = [f"restored {_counted(len(ids))} from {backup.name}"]
    lines += [f"restored {each.path}{_renamed(each, names[each.id])}" for each in restored]
    lines += [f"{path} was the output of a function, which is not attached any more" for path in detached]
    lines += [] if arguments.collection else _lacking(backup)
    answer = {"backup": backup.name, "ids": ids, "detached": detached, "failed": failed}
    return answer, lines, DAMAGED if failed else WHOLE


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


async def _collections(catalog: Catalog) -> list[Place]:
    """All collections of all databases."""
    databases = [database async for database in catalog.databases.all()]
    return [each for database in databases for each in await places_in(catalog, database)]


async def _suitable(archive: Archive, place: str, wanted: str | None, at_s: float | None) -> Backup:
    """The newest backup that has the collection that is wanted, or of everything; with a time, the first of these that
    was begun later, whose log reaches back to it. Raises NotFound.
    """
    names = await archive.names()
    if not names:
        raise NotFound(f"there is no backup in {place}")
    for name in names if at_s is not None else reversed(names):
        backup = await archive.read(name)
        if (at_s is None or backup.begun_s >= at_s) and is_suitable(backup, wanted):
            return backup
    what = "of everything: name a backup by --backup" if wanted is None else f"that has a collection {wanted}"
    if at_s is None:
        raise NotFound(f"there is no backup {what}; polychrome backup list {place} shows all")
    raise NotFound(f"there is no backup {what} that was begun after that moment; without --at the newest one is taken")


def _described(backup: Backup) -> dict[str, Any]:
    stored = {file.key: file.bytes for file in backup.stored()}
    return {
        "backup": backup.name,
        "cluster": backup.cluster,
        "begun_s": backup.begun_s,
        "ended_s": backup.ended_s,
        "collections": len(backup.collections),
        "bytes": sum(stored.values()),
        "everything": backup.selected is None,
        "names": sorted(collection.path for collection in backup.collections),
        "failed": backup.failed,
    }


def _listed(described: dict[str, Any]) -> str:
    """A backup in the list, for people."""
    what = "everything" if described["everything"] else ", ".join(described["names"])
    lacks = f"; lacks {len(described['failed'])} that could not be read" if described["failed"] else ""
    size = f"{described['bytes']:,}"
    return f"{described['backup']}  {_counted(described['collections']):>16}  {size:>16} bytes  {what}{lacks}"


def _lacking(backup: Backup) -> list[str]:
    """The lines for people about what the backup lacks."""
    return [f"not in the backup: {collection}: {why}" for collection, why in backup.failed.items()]


def _counted(collections: int) -> str:
    return f"{collections} collection{'' if collections == 1 else 's'}"


def _renamed(collection: CollectionBackup, name: str) -> str:
    return "" if name == collection.name else f" as {name}"


def _backup_name(text: str) -> str:
    if not is_name(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no name of a backup, such as 20261130T184501.250Z")
    return text
