"""Checking and repairing the append-only file of a cluster's own Redis server, which is not running meanwhile.

```text
appendonlydir/appendonly.aof.manifest       names the others, in the order in which they are loaded
appendonlydir/appendonly.aof.<n>.base.rdb   all keys as of the last rewriting
appendonlydir/appendonly.aof.<n>.incr.aof   commands since then (`polychrome.append_only.file`)
appendonlydir.damaged-<time>/               files as they were before a repair
```

A repaired file is the one before without the units that are damaged. It is written beside it, synced, and takes its
name; the damaged file is kept. Of the base file no part can be left out: where its checksum alone is wrong, some byte
of it is another one. The repair removes the checksum, so that the server loads it; log entries have checksums of their
own by which a bad one is found.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO, Final

from polychrome.append_only.file import LostBytes, Window, scan
from shared.process.disk import sync_folder

MANIFEST: Final = "appendonly.aof.manifest"
KEYS_NAMED_MAX: Final = 10
_MANIFEST_LINE: Final = re.compile(r"file (\S+) seq \d+ type ([bhi])(?: .*)?")
_COPY_BYTES: Final = 1024 * 1024
_CHECKSUM_BYTES: Final = 8

_ENTRY: Final = re.compile(
    rb"\r\n[^\r\n]{1,32}:\{([0-9a-f-]{36})\}:log:(\d+)\r\n\$\d+\r\n(\d+)-0\r\n"  # key and id of XADD
    rb"(?:\$1\r\np\r\n\$\d+\r\n[^\r\n]*\r\n\$1\r\nf\r\n\$\d+\r\n\d+\r\n\$1\r\ne\r\n\$\d+\r\n(\d+)\r\n)?"
)
_KEY: Final = re.compile(rb"\r\n\$\d+\r\n([A-Za-z0-9_.-]{1,32}:\{[^\r\n}]{1,80}\}[^\r\n]{0,80})\r\n")


class UnrepairableError(Exception):
    """The file cannot be repaired; the message says what to do instead."""


@dataclass(frozen=True, slots=True)
class LostEntries:
    """Log entries among lost bytes: of a shard, the first position and the end of the last append (exclusive)."""

    collection: str
    shard: int
    first: int
    end: int


@dataclass(frozen=True, slots=True)
class FileDamage:
    """Lost bytes of a file, and what is lost with it as far as it can be read: log entries, and other keys by name."""

    path: Path
    damage: LostBytes
    entries: list[LostEntries] = field(default_factory=list)
    keys: list[str] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Sentences for people."""
        lost = f"{self.path}: bytes {self.damage.start} to {self.damage.end} are lost"
        if self.damage.torn:
            return [f"{lost}: {self.damage.reason}; none of it was acknowledged"]
        lines = [f"{lost} (at {self.damage.found}: {self.damage.reason})"]
        lines += [
            f"  collection {each.collection}, shard {each.shard}: positions {each.first} to {each.end - 1}"
            for each in self.entries
        ]
        if self.keys:
            lines.append(f"  changes of {', '.join(self.keys)}")
        return lines


def check(directory: Path, program: Path, prefix: str) -> list[FileDamage]:
    """The damage in the append-only files in `directory`, a torn end included. `program` is the server's, `prefix` the
    first part of the cluster's keys. Raises UnrepairableError when there is more than this can name, and OSError.
    """
    found: list[FileDamage] = []
    files = files_of(directory)
    for path in files:
        if path.suffix == ".rdb":
            found += _check_base(path, program)
            continue
        with path.open("rb") as file:
            window = Window(file)
            for damage in scan(window, f"{prefix}:{{".encode()):
                torn = damage.torn and path == files[-1]  # an earlier one was written to its end
                lost = replace(damage, torn=torn)
                found.append(FileDamage(path, lost, *_contents(window, lost)))
    return found


def files_of(directory: Path) -> list[Path]:
    """The files that are loaded, in order; none when there is no append-only file. Raises UnrepairableError."""
    try:
        lines = (directory / MANIFEST).read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return []
    entries = [_MANIFEST_LINE.fullmatch(line.strip()) for line in lines if line.strip()]
    names = [entry[1] for entry in entries if entry is not None and entry[2] != "h"]
    if None in entries or not names:
        raise UnrepairableError(f"{directory / MANIFEST} is not one that the server writes")
    missing = [name for name in names if not (directory / name).exists()]
    if missing:
        raise UnrepairableError(f"{directory / missing[0]} is missing")
    return [directory / name for name in names]


def repair(found: list[FileDamage], directory: Path) -> Path | None:
    """Writes the damaged files anew, without what is lost. Returns the folder that keeps them as they were, None when
    there was nothing to do. Raises OSError.
    """
    if not found:
        return None
    kept = directory.with_name(f"{directory.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    kept.mkdir()
    for path in dict.fromkeys(each.path for each in found):
        draft = path.with_name(f"{path.name}.repaired")
        lost = [each.damage for each in found if each.path == path]
        with path.open("rb") as source, draft.open("wb") as target:
            for start, end in _kept_ranges(lost, source.seek(0, 2)):
                _copy(source, target, start, end)
            if path.suffix == ".rdb":
                target.write(bytes(_CHECKSUM_BYTES))  # zero: there is no checksum
            target.flush()
            os.fsync(target.fileno())
        os.link(path, kept / path.name)
        draft.replace(path)
    for folder in (kept, directory, directory.parent):
        sync_folder(folder)
    return kept


def cut_torn_end(torn: FileDamage) -> None:
    """Cuts off what was being written when the server was killed. Raises OSError."""
    with torn.path.open("rb+") as file:
        file.truncate(torn.damage.start)
        os.fsync(file.fileno())


def set_aside(directory: Path) -> Path:
    """Moves all of the append-only file out of the way, and returns where to. The server starts empty then, and the log
    service restores what the bucket has.
    """
    kept = directory.with_name(f"{directory.name}.damaged-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}")
    directory.rename(kept)
    sync_folder(directory.parent)
    return kept


def _check_base(path: Path, program: Path) -> list[FileDamage]:
    """The damage of a base file. The server's program checks it: by another name it is another program."""
    name = "redis-check-rdb" if "redis" in program.name else "valkey-check-rdb"
    run = subprocess.run(
        [name, path], executable=program, capture_output=True, text=True, errors="replace", check=False
    )
    if run.returncode == 0:
        return []
    size = path.stat().st_size
    said = [line for line in run.stdout.splitlines() if line.startswith("[offset") or "CRC" in line]
    if any("CRC" in line or "checksum" in line.lower() for line in said):
        start = size - _CHECKSUM_BYTES
        reason = "the checksum of the base file is wrong, so some byte of it is another one; it is loaded as it is"
        return [FileDamage(path, LostBytes(start, size, start, reason))]
    raise UnrepairableError(f"{path} cannot be read ({said[-1] if said else 'unknown format'})")


def _contents(window: Window, damage: LostBytes) -> tuple[list[LostEntries], list[str]]:
    """The log entries and the other keys that lost bytes name, as far as they can be read."""
    entries: dict[tuple[str, int], LostEntries] = {}
    for _, match in window.search(_ENTRY, damage.start, damage.end):
        collection, shard = match[1].decode(), int(match[2])
        first, end = int(match[3]), int(match[4] or int(match[3]) + 1)
        before = entries.get((collection, shard))
        if before is not None:
            first, end = min(before.first, first), max(before.end, end)
        entries[collection, shard] = LostEntries(collection, shard, first, end)
    keys: dict[str, None] = {}
    for _, match in window.search(_KEY, damage.start, damage.end):
        if b"}:log:" not in match[1] and b"}:req:" not in match[1] and len(keys) < KEYS_NAMED_MAX:
            keys[match[1].decode(errors="replace")] = None
    return list(entries.values()), list(keys)


def _kept_ranges(lost: list[LostBytes], size: int) -> Iterator[tuple[int, int]]:
    at = 0
    for damage in lost:
        yield at, damage.start
        at = damage.end
    yield at, size


def _copy(source: BinaryIO, target: BinaryIO, start: int, end: int) -> None:
    source.seek(start)
    while start < end:
        block = source.read(min(_COPY_BYTES, end - start))
        target.write(block)
        start += len(block)
