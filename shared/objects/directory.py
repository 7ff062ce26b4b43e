"""The object store as a directory: of one machine, or of a shared file system with working `link` and `rename`.

An object is a file at its key's path. Both writes follow the same steps, so that a crash at any point leaves either
nothing under the key or all of it:

1. write a temporary file under `.temporary/` (a key has no part that begins with a dot), fsync it;
2. `create`: link it to its name, which the kernel refuses when the name exists; `put`: rename it over its name;
3. fsync the folder and those above it up to the root, so that the name itself survives (another writer may have made a
   folder and not come so far yet); of a folder whose own name this process has synced before, only the folder itself;
4. remove the temporary name.

Folders that became empty are removed with the last object; a writer that finds its folder gone makes it again.
Temporary files of dead writers are removed by whoever opens the directory after `TEMPORARY_AGE_MAX_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from operator import attrgetter
from pathlib import Path
from typing import Final, TypeVar

from shared.errors import Unavailable
from shared.objects.port import ObjectInfo, ObjectNotFound, check_key, check_range, noticing_full_volume
from shared.process.disk import full_disk, is_full, sync_folder

TEMPORARY_AGE_MAX_S: Final = 24 * 3600.0
THREADS: Final = 8
DELETED_AT_ONCE: Final = 200
"""Objects that are deleted before their folders are synced."""
FOLDERS_HELD_MAX: Final = 16
"""Folders that are held open."""
_FOLDER_ATTEMPTS: Final = 20
_COPY_BYTES: Final = 1 << 20

T = TypeVar("T")


class DirectoryStore:
    """Objects under `root`. All file work runs in the store's own threads."""

    def __init__(self, root: Path, threads: ThreadPoolExecutor) -> None:
        self._root = root
        self._temporary = root / ".temporary"
        self._threads = threads
        self._durable = _DurableFolders()

    def close(self) -> None:
        """Lets go of the folders that it holds open."""
        self._durable.close()

    async def get(self, key: str) -> bytes:
        return await self._run(key, self._path(key).read_bytes)

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        check_range(start, end)
        return await self._run(key, lambda: _read_range(self._path(key), start, end))

    async def download(self, key: str, path: Path) -> None:
        await self._run(key, lambda: _copy_whole(self._path(key), path))

    async def put(self, key: str, data: bytes | Path) -> None:
        await self._run(key, lambda: self._write(self._path(key), data, exclusive=False))

    async def create(self, key: str, data: bytes) -> bool:
        return await self._run(key, lambda: self._write(self._path(key), data, exclusive=True))

    async def delete(self, keys: Iterable[str]) -> None:
        paths = [self._path(key) for key in keys]
        for start in range(0, len(paths), DELETED_AT_ONCE):
            some = paths[start : start + DELETED_AT_ONCE]
            await self._run(some[0].name, lambda some=some: self._remove(some))  # type: ignore[misc] # no type for a lambda with a default

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        for info in await self._run(prefix, lambda: sorted(self._scan(prefix), key=attrgetter("key"))):
            yield info

    async def _run(self, key: str, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            if not self._temporary.is_dir():
                raise Unavailable(f"object storage: {self._root} is away") from None
            raise ObjectNotFound(key) from None
        except OSError as error:
            reason = full_disk(self._root) if is_full(error) else error
            raise Unavailable(f"object storage: {reason}") from error

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _write(self, path: Path, data: bytes | Path, *, exclusive: bool) -> bool:
        temporary = self._temporary / uuid.uuid4().hex
        try:
            _write_durably(temporary, data)
            return self._publish(temporary, path, exclusive=exclusive)
        except FileNotFoundError as error:  # `data`'s file, or the directory itself is away
            raise OSError(f"cannot write {path}: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)

    def _publish(self, temporary: Path, path: Path, *, exclusive: bool) -> bool:
        """Gives the file its name. Repeats when a deleter removed an empty folder in between."""
        for attempt in range(_FOLDER_ATTEMPTS):
            try:
                with contextlib.suppress(FileExistsError):  # made and removed by others while it is looked at
                    path.parent.mkdir(parents=True, exist_ok=True)
                if exclusive:
                    os.link(temporary, path)
                else:
                    temporary.replace(path)
            except FileExistsError:
                return False
            except FileNotFoundError:
                if attempt + 1 == _FOLDER_ATTEMPTS:
                    raise
            else:
                break
        self._sync_name(path)
        return True

    def _sync_name(self, path: Path) -> None:
        """Makes the name of a new file durable."""
        with contextlib.suppress(FileNotFoundError):  # somebody saw the object and deleted it already
            if self._durable.has(path.parent):
                sync_folder(path.parent)
                return
        held = self._durable.hold(path.parent)
        for folder in path.parents:
            with contextlib.suppress(FileNotFoundError):
                sync_folder(folder)
            if folder == self._root:
                break
        if held is not None:
            self._durable.keep(path.parent, held)

    def _remove(self, paths: Iterable[Path]) -> None:
        folders: dict[Path, None] = {}
        for path in paths:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                path.unlink()
                folders[path.parent] = None
        for folder in folders:
            with contextlib.suppress(FileNotFoundError):
                sync_folder(folder)
            self._remove_empty(folder)

    def _remove_empty(self, folder: Path) -> None:
        """Removes the folder and those above it, as far as they are empty."""
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone already
                return
            folder = folder.parent

    def _scan(self, prefix: str) -> Iterator[ObjectInfo]:
        if not self._temporary.is_dir():
            raise OSError(f"{self._root} is away")
        base, _, _ = prefix.rpartition("/")
        for folder, names, files in os.walk(self._root / base, onerror=_unless_gone):
            above = Path(folder).relative_to(self._root).as_posix()
            names[:] = [name for name in names if not name.startswith(".") and _may_hold(above, name, prefix)]
            for file in files:
                path = Path(folder, file)
                key = path.relative_to(self._root).as_posix()
                if not key.startswith(prefix):
                    continue
                with contextlib.suppress(FileNotFoundError):  # deleted meanwhile
                    found = path.stat()
                    yield ObjectInfo(key, found.st_size, found.st_mtime)


class _DurableFolders:
    """Folders whose names, up to the root, were synced by this process. Each is held open: as long as its path leads to
    the folder that is held, it is the same folder, for an open folder's inode is not given to another one; and a folder
    that is not empty cannot be removed.
    """

    def __init__(self) -> None:
        self._held: OrderedDict[Path, int] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, folder: Path) -> bool:
        """Whether the folder that is there now is one of them. Raises FileNotFoundError when there is none."""
        there = folder.stat()
        with self._lock:
            held = self._held.get(folder)
            return held is not None and os.path.samestat(os.fstat(held), there)

    def hold(self, folder: Path) -> int | None:
        """A descriptor of the folder, before its name is synced; None when it is gone."""
        try:
            return os.open(folder, os.O_RDONLY)
        except FileNotFoundError:
            return None

    def keep(self, folder: Path, descriptor: int) -> None:
        """Remembers the folder with this descriptor, whose name was synced since it was opened."""
        with self._lock:
            before = self._held.pop(folder, None)
            self._held[folder] = descriptor
            doomed = [] if before is None else [before]
            if len(self._held) > FOLDERS_HELD_MAX:
                doomed.append(self._held.popitem(last=False)[1])
        for each in doomed:
            os.close(each)

    def close(self) -> None:
        with self._lock:
            while self._held:
                os.close(self._held.popitem()[1])


@contextlib.asynccontextmanager
async def open_directory(root: Path) -> AsyncIterator[DirectoryStore]:
    """Opens the store under `root`, which is made when it is not there. Raises Unavailable when it cannot be made."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="directory-store") as threads:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(threads, _prepare, root)
        except OSError as error:
            raise Unavailable(f"object storage: {error}") from error
        store = DirectoryStore(root, threads)
        try:
            yield store
        finally:
            await loop.run_in_executor(threads, store.close)


def _prepare(root: Path) -> None:
    temporary = root / ".temporary"
    temporary.mkdir(parents=True, exist_ok=True)
    sync_folder(root)
    sync_folder(root.parent)
    for file in temporary.iterdir():
        with contextlib.suppress(FileNotFoundError):  # its writer finished, or another opener was first
            if time.time() - file.stat().st_mtime > TEMPORARY_AGE_MAX_S:
                file.unlink()


def _read_range(path: Path, start: int, end: int) -> bytes:
    with path.open("rb") as file:
        file.seek(start)
        return file.read(end - start)


def _write_durably(path: Path, data: bytes | Path) -> None:
    with path.open("xb") as file:
        if isinstance(data, Path):
            with data.open("rb") as source:
                shutil.copyfileobj(source, file, _COPY_BYTES)
        else:
            file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _copy_whole(source: Path, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    with source.open("rb") as reading:
        try:
            with noticing_full_volume(path), temporary.open("xb") as writing:
                shutil.copyfileobj(reading, writing, _COPY_BYTES)
            temporary.replace(path)
        except FileNotFoundError as error:  # the folder to write to, not the object
            raise OSError(f"cannot write {path}: {error}") from error
        finally:
            temporary.unlink(missing_ok=True)


def _may_hold(above: str, name: str, prefix: str) -> bool:
    """Whether the folder `name` in `above`, a path from the root ("." for the root), may hold objects of the prefix."""
    path = f"{name}/" if above == "." else f"{above}/{name}/"
    return path.startswith(prefix) or prefix.startswith(path)


def _unless_gone(error: OSError) -> None:
    """Ends the walk of a tree with this error, unless a folder was deleted while the tree was walked."""
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error
