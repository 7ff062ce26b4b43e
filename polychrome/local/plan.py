"""The processes of a local cluster and their settings, from the options of the command line. Pure."""

from __future__ import annotations

import socket
import sys
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from polychrome.local.process import ProcessSpec

START_ORDER: Final = ("redis", "logservice", "compactor", "queryworker", "embedder", "frontend")
"""Roles in the order in which they are started, and in which they are shown."""

COMPACTOR_NICE: Final = 4
"""Niceness of compactors. On one machine, requests go before compactions; but while requests never pause, compactions
still get about a fifth of it, or the log would grow without end."""

STOP_ORDER: Final = ("frontend", "embedder", "queryworker", "compactor", "logservice", "redis")
"""Roles in the order in which they are stopped: each one before those that it calls."""

EMBEDDING_FUNCTIONS: Final = ("default", "onnx_mini_lm_l6_v2", "sentence_transformer")
"""Names by which the official clients call functions that run the embedders' model; the first is the clients' default.
A function of such a name that asks for another model in its settings is refused.
"""

AUTH: Final = "POLYCHROME_FRONTEND_AUTH"
BOOTSTRAP_KEY_FILE: Final = "POLYCHROME_FRONTEND_BOOTSTRAP_KEY_FILE"
AUTH_MODES: Final = ("off", "keys", "off-on-every-address")
LOCAL_NAMES: Final = "POLYCHROME_FRONTEND_LOCAL_EMBEDDER_NAMES"
CLUSTER_SECRET_FILE: Final = "POLYCHROME_CLUSTER_SECRET_FILE"  # noqa: S105 (the name of a setting)
TLS_CERTIFICATE_FILE: Final = "POLYCHROME_FRONTEND_TLS_CERTIFICATE_FILE"
DEFAULT_NAME: Final = "POLYCHROME_FRONTEND_EMBEDDER_DEFAULT"


@dataclass(frozen=True, slots=True)
class ClusterOptions:
    """The options of `polychrome up`."""

    host: str = "127.0.0.1"
    port: int = 8000
    data_dir: Path = Path("data")
    frontends: int = 1
    log_services: int = 1
    compactors: int = 1
    query_workers: int = 1
    embedders: int = 0
    shards_default: int | None = None
    allow_reset: bool = False
    cors_allow_origins: tuple[str, ...] = ()
    in_memory: bool = False
    reserve_mib: int = 128
    tls: bool = False
    auth: str | None = None

    @property
    def url(self) -> str:
        """URL of the API."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Stores:
    """The places of the cluster's state: the URLs of Redis and of the object store, which this cluster runs itself or
    shares, a folder for scratch space, and the file of the cluster secret. `name` is the data directory's: part of the
    processes' ids, which are unique in the membership even where several clusters share a Redis.
    """

    redis_url: str
    bucket_url: str
    scratch: Path
    name: str
    cluster_secret: Path | None = None
    redis_urls: Mapping[str, str] = field(default_factory=dict)
    """URLs of Redis for the processes of some roles, in place of `redis_url`: each has a user of its own."""


def process_specs(
    options: ClusterOptions, stores: Stores, inherited: Container[str] = (), listen_fds: tuple[int, ...] = ()
) -> list[ProcessSpec]:
    """All processes but the Redis server, in the order in which they start. `inherited` are the variables that the
    environment sets already: those about embedding functions are left as they are. `listen_fds` are the listening
    sockets that frontends inherit; without any, each opens its own.
    """
    common = {"POLYCHROME_BUCKET_URL": stores.bucket_url}
    if stores.cluster_secret is not None and CLUSTER_SECRET_FILE not in inherited:
        common[CLUSTER_SECRET_FILE] = str(stores.cluster_secret)
    by_role: dict[str, tuple[int, Mapping[str, str]]] = {
        "logservice": (options.log_services, {}),
        "compactor": (options.compactors, {"POLYCHROME_COMPACTOR_NICE": str(COMPACTOR_NICE)}),
        "queryworker": (options.query_workers, {}),
        "embedder": (options.embedders, {}),
        "frontend": (options.frontends, _frontend_environ(options, inherited, listen_fds)),
    }
    fds = {"frontend": listen_fds}
    return [
        _spec(
            role,
            number,
            {**common, **_redis(role, stores), **environ, **_identity(role, number, stores)},
            fds.get(role, ()),
        )
        for role in START_ORDER
        if role in by_role
        for count, environ in [by_role[role]]
        for number in range(1, count + 1)
    ]


def _redis(role: str, stores: Stores) -> dict[str, str]:
    return {"REDIS_URL": stores.redis_urls.get(role, stores.redis_url)}


def _spec(role: str, number: int, environ: Mapping[str, str], fds: tuple[int, ...]) -> ProcessSpec:
    return ProcessSpec(f"{role}-{number}", role, (sys.executable, "-m", role), environ, fds)


def _frontend_environ(
    options: ClusterOptions, inherited: Container[str], listen_fds: tuple[int, ...]
) -> dict[str, str]:
    environ = {"POLYCHROME_FRONTEND_HOST": options.host, "POLYCHROME_FRONTEND_PORT": str(options.port)}
    if listen_fds:
        environ["POLYCHROME_FRONTEND_LISTEN_FDS"] = ",".join(map(str, listen_fds))
    elif options.frontends > 1:
        environ["POLYCHROME_FRONTEND_REUSE_PORT"] = "true"
    if options.auth is not None:
        environ[AUTH] = options.auth
    if options.allow_reset:
        environ["POLYCHROME_FRONTEND_ALLOW_RESET"] = "true"
    if options.cors_allow_origins:
        environ["POLYCHROME_FRONTEND_CORS_ALLOW_ORIGINS"] = ",".join(options.cors_allow_origins)
    if options.shards_default is not None:
        environ["POLYCHROME_FRONTEND_SHARDS_DEFAULT"] = str(options.shards_default)
    if options.embedders and LOCAL_NAMES not in inherited:
        environ[LOCAL_NAMES] = ",".join(EMBEDDING_FUNCTIONS)
        if DEFAULT_NAME not in inherited:
            environ[DEFAULT_NAME] = EMBEDDING_FUNCTIONS[0]
    return environ


def _identity(role: str, number: int, stores: Stores) -> dict[str, str]:
    """The settings that give a process its id and its folder of scratch space. Both stay the same when it is started
    again, so that a killed process's lease and membership are its successor's at once, and need not expire first.
    """
    folder = stores.scratch / f"{role}-{number}"
    name = {"POLYCHROME_PROCESS_ID": f"{role}-{number}-{socket.gethostname()}-{stores.name}"}
    match role:
        case "compactor":
            return {**name, "POLYCHROME_COMPACTOR_SCRATCH_DIR": str(folder)}
        case "queryworker":
            return {**name, "POLYCHROME_QUERYWORKER_CACHE_DIR": str(folder)}
    return name
