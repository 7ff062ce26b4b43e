"""Room on the disks of a local cluster, and what happens when there is none left.

A reserve, a file that takes room and holds nothing, lies on each disk that the cluster cannot work without: those of
the Redis server's append-only file and of the bucket. When such a disk runs full,

1. the reserve is given back: Redis can write, which would end otherwise, and compactors can make segments;
2. writes of records are refused: the server is told that it has no memory left (`maxmemory 1`), and everything that
   frees something, deletes, compaction, trimming, snapshots, runs in scripts that it takes nevertheless (`allow-oom`);
3. the server is asked to write its append-only file anew, when most of that is of no use any more.

When there is room for the reserve again, and some more, it is taken again, and writes go on.

Other disks, those of logs and of scratch space, are watched and named.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Final, Protocol

from shared.process.disk import free_bytes, full_disk, is_full

RESERVE_FILE: Final = Path(".reserve") / "space"
"""The reserve's path below the folder that it is for. In the bucket, a folder with a dot holds no object."""

START_BYTES_MIN: Final = 1024 * 1024
"""Bytes that must be free before a cluster, or its Redis server, is started: it writes at once."""

LOW_SHARE: Final = 4
"""A disk counts as full when less is free than the reserve divided by this; the reserve itself is not free."""

RECLAIM_EVERY_S: Final = 10.0
"""Pause between two requests to write the append-only file anew while a disk is full, in seconds."""


class Step(Enum):
    """A change of a reserve that is due."""

    NOTHING = "nothing"
    RELEASE = "release"
    TAKE = "take"


def next_step(*, held: bool, free: int, reserve: int) -> Step:
    """The step for a disk with so many free bytes, whose reserve of so many bytes is held or not. Taking it leaves
    twice as much free as a disk has that counts as full, so that the two do not alternate.
    """
    if held:
        return Step.RELEASE if free < _low(reserve) else Step.NOTHING
    return Step.TAKE if free >= wanted_bytes(reserve) else Step.NOTHING


def wanted_bytes(reserve: int) -> int:
    """Bytes that must be free for a reserve of so many bytes to be taken."""
    return reserve + 2 * _low(reserve)


def _low(reserve: int) -> int:
    return max(reserve // LOW_SHARE, START_BYTES_MIN)


class Reserve:
    """A file of `size` bytes in `folder` that keeps room."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size
        self._path = folder / RESERVE_FILE

    @property
    def held(self) -> bool:
        try:
            return self._path.stat().st_size >= self.size
        except FileNotFoundError:
            return False

    def take(self) -> bool:
        """Takes the room; whether there was enough."""
        try:
            self._path.parent.mkdir(exist_ok=True)
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self.size)
                os.ftruncate(descriptor, self.size)
            finally:
                os.close(descriptor)
        except OSError as error:
            self.release()
            if not is_full(error):
                raise
            return False
        return True

    def release(self) -> None:
        """Gives the room back."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


class WriteGate(Protocol):
    """Where writes of records are refused and taken."""

    def set(self, *, refuse: bool) -> bool:
        """Refuses or takes writes from now on, also after a restart of the server; whether the server knows it."""
        ...

    def reclaim(self) -> None:
        """Has the server write its append-only file anew, if that frees room."""
        ...


@dataclass(frozen=True, slots=True)
class Watched:
    """A disk that is only watched, by a folder on it, with what cannot be written there while it is full."""

    folder: Path
    lost: str


class SpaceWatch:
    """Watches disks: those with a reserve, and others. `say` gets lines for people; `gate` is None where the cluster
    has no Redis server of its own.
    """

    def __init__(
        self, reserves: Sequence[Reserve], others: Sequence[Watched], gate: WriteGate | None, say: Callable[[str], None]
    ) -> None:
        self._reserves = reserves
        self._others = others
        self._gate = gate
        self._say = say
        self._full: set[Path] = set()
        self._refusing: bool | None = None
        self._waits = False
        self._reclaimed_s = 0.0

    @property
    def reserved_folders(self) -> list[Path]:
        """The folders whose disks have reserves."""
        return [reserve.folder for reserve in self._reserves]

    @property
    def watched_folders(self) -> list[Path]:
        """The folders whose disks are only watched."""
        return [other.folder for other in self._others]

    @property
    def refusing(self) -> bool:
        """Whether writes are refused."""
        return any(not reserve.held for reserve in self._reserves)

    def check(self) -> None:
        """Does what is due, for all disks; to be called a few times a second."""
        for reserve in self._reserves:
            self._check_reserve(reserve)
        for other in self._others:
            self._check_other(other)
        refuse = self.refusing
        if self._gate is None:
            return
        if self._refusing is not refuse and self._gate.set(refuse=refuse):
            self._refusing = refuse
        if refuse and self._refusing and time.monotonic() - self._reclaimed_s > RECLAIM_EVERY_S:
            self._reclaimed_s = time.monotonic()
            self._gate.reclaim()

    def server_restarts(self) -> None:
        """The Redis server is about to be started."""
        self._refusing = None

    def may_start(self) -> bool:
        """Whether the disks have room for a Redis server to start on. Says once that it waits when they have not."""
        short = [reserve.folder for reserve in self._reserves if free_bytes(reserve.folder) < START_BYTES_MIN]
        if short and not self._waits:
            self._say(f"{full_disk(short[0])}; waiting for room to start Redis")
        self._waits = bool(short)
        return not short

    def _check_reserve(self, reserve: Reserve) -> None:
        match next_step(held=reserve.held, free=free_bytes(reserve.folder), reserve=reserve.size):
            case Step.RELEASE:
                phrase = full_disk(reserve.folder)
                reserve.release()
                self._name(reserve.folder, f"{phrase}; records are refused, deletes and compaction use the reserve")
            case Step.TAKE if reserve.take():
                self._forget(reserve.folder, "records are taken again")
            case _ if not reserve.held:
                wanted = wanted_bytes(reserve.size) // (1024 * 1024)
                line = f"{full_disk(reserve.folder)}; records are refused until {wanted} MiB are free (--reserve-mib)"
                self._name(reserve.folder, line)

    def _check_other(self, other: Watched) -> None:
        try:
            free = free_bytes(other.folder)
        except FileNotFoundError:  # not made yet
            return
        if free < START_BYTES_MIN // 4:
            self._name(other.folder, f"{full_disk(other.folder)}; {other.lost}")
        elif free > START_BYTES_MIN:
            self._forget(other.folder, "all is well there")

    def _name(self, folder: Path, line: str) -> None:
        if folder not in self._full:
            self._full.add(folder)
            self._say(line)

    def _forget(self, folder: Path, what: str) -> None:
        if folder in self._full:
            self._full.discard(folder)
            self._say(f"the disk of {folder} has room again; {what}")


def full_disks(reserves: Iterable[Path], others: Iterable[Path]) -> list[str]:
    """Phrases that name the full disks among those with reserves, by their folders, and others. Of a running cluster:
    what was released shows.
    """
    released = [folder for folder in reserves if folder.exists() and not (folder / RESERVE_FILE).exists()]
    short = [folder for folder in others if folder.exists() and free_bytes(folder) < START_BYTES_MIN // 4]
    return [f"{full_disk(folder)}; records are refused" for folder in released] + [
        full_disk(folder) for folder in short
    ]


def disks_of(folders: Sequence[Path]) -> list[Path]:
    """The first of these folders on each disk. Folders that do not exist are left out."""
    first: dict[int, Path] = {}
    for folder in folders:
        if folder.exists():
            first.setdefault(folder.stat().st_dev, folder)
    return list(first.values())
