"""The data directory of a local cluster, and the lock that keeps it to one cluster.

```text
lock            held by the supervisor and, inherited, by every process of the cluster (`local.directory_lock`)
cluster.json    how to reach the running cluster: read by `polychrome status`
redis/          the server's append-only file and configuration
objects/        the object store
.reserve/       below redis/ (and objects/, on another disk): room for a full disk (`polychrome.local.space`)
scratch/        what compactors and query workers may lose
logs/           one file per process
cluster-secret  by which the cluster's processes know each other; its owner alone may read it
name            random: tells this directory's processes from those of other clusters on the same Redis server
```
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import msgspec

from polychrome.local.directory_lock import LockedError, directory_locks
from polychrome.secret_files import ensure_bootstrap_key, ensure_cluster_secret
from shared.process.disk import full_disk, is_full


class DataDirError(Exception):
    """The directory cannot be used; the message says why."""


class DataDirFullError(DataDirError):
    """The directory's disk has no room for what must be made there."""


class DataDirInUseError(DataDirError):
    """Another cluster has the directory."""


class ProcessEntry(msgspec.Struct, frozen=True):
    """A process of the running cluster. `admin` is its admin endpoint (host:port), `id` its id in the membership; both
    are None for the Redis server.
    """

    name: str
    role: str
    pid: int
    admin: str | None
    id: str | None = None


class Register(msgspec.Struct, frozen=True):
    """The running cluster and how to reach it: the content of cluster.json, which its owner alone may read, because
    `redis_url` has a password.
    """

    url: str
    redis_url: str
    redis_prefix: str
    processes: list[ProcessEntry]
    reserves: list[str] = []
    """Folders on disks that have a reserve."""

    watched: list[str] = []
    """Folders on other disks that are watched."""

    problems: list[str] = []
    """Sentences for people about faults that the supervisor found."""


_REGISTER: Final = msgspec.json.Decoder(Register)


class DataDir:
    """A locked data directory: paths below it, and the file descriptors of its locks."""

    def __init__(self, root: Path, lock_fds: tuple[int, ...]) -> None:
        self.root = root
        self.name = _name_of(root)
        self.cluster_secret = root / "cluster-secret"
        ensure_cluster_secret(self.cluster_secret)
        self.lock_fds = lock_fds

    @property
    def redis(self) -> Path:
        return self.root / "redis"

    @property
    def objects(self) -> Path:
        return self.root / "objects"

    @property
    def scratch(self) -> Path:
        return self.root / "scratch"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    def log(self, process: str) -> Path:
        """The log file of the process with this name."""
        return self.logs / f"{process}.log"

    def register(self, register: Register) -> None:
        """Writes cluster.json, whole or not at all."""
        path = _register_path(self.root)
        draft = path.with_suffix(".new")
        draft.touch(mode=0o600)
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(register)))
        draft.replace(path)

    def unregister(self) -> None:
        """Removes cluster.json: no cluster is running any more."""
        _register_path(self.root).unlink(missing_ok=True)


def bootstrap_key_path(root: Path) -> Path:
    """The file with the key of a local cluster's operator."""
    return root / "bootstrap.key"


def bootstrap_key_file(root: Path) -> Path:
    """The file with the key of a local cluster's operator, which its owner alone may read; drawn when there is none."""
    path = bootstrap_key_path(root)
    ensure_bootstrap_key(path)
    return path


def read_register(root: Path) -> Register | None:
    """The content of cluster.json in the directory `root`; None when no cluster runs there."""
    try:
        return _REGISTER.decode(_register_path(root).read_bytes())
    except FileNotFoundError:
        return None


def _ignore(_line: str) -> None:
    """Shows a line to nobody."""


@contextmanager
def open_data_dir(root: Path, say: Callable[[str], None] = _ignore) -> Iterator[DataDir]:
    """The data directory at `root`, locked until the end; what is missing is created. Waits for the end of the
    processes that a killed cluster has left, and says so by `say`. Raises DataDirError.
    """
    root = root.resolve()
    with ExitStack() as stack:
        try:
            for folder in ("redis", "objects", "scratch", "logs"):
                (root / folder).mkdir(parents=True, exist_ok=True)
            waiting = partial(say, f"{root} is in use by processes of a killed cluster; waiting for their end")
            locks = stack.enter_context(directory_locks(root, (root / "redis", root / "objects"), waiting))
            opened = DataDir(root, locks)
        except LockedError as error:
            raise DataDirInUseError(_in_use(root, error.owner)) from error
        except OSError as error:
            if is_full(error):
                raise DataDirFullError(full_disk(root)) from error
            raise DataDirError(f"the data directory {root} cannot be used: {error.strerror}") from error
        yield opened


def _in_use(root: Path, owner: int | None) -> str:
    if owner is not None:
        return f"{root} is in use by another cluster (process {owner}): stop that first (Ctrl-C there, or kill {owner})"
    return f"{root} is in use by processes that a killed cluster has left, and that do not end: stop them, or try again"


@contextmanager
def temporary_data_dir() -> Iterator[DataDir]:
    """A new data directory that is removed at the end."""
    root = Path(tempfile.mkdtemp(prefix="polychrome-"))
    try:
        with open_data_dir(root) as data_dir:
            yield data_dir
    finally:
        shutil.rmtree(root)


def _name_of(root: Path) -> str:
    """The name in the file `name`, drawn when there is none. A draft is moved to its place: half a name, left by a
    crash, would be taken for a whole one.
    """
    path = root / "name"
    if not path.exists():
        draft = path.with_suffix(".new")
        draft.write_text(secrets.token_hex(4))
        draft.replace(path)
    return path.read_text()


def _register_path(root: Path) -> Path:
    return root / "cluster.json"
