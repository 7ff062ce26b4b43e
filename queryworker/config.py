"""The settings of the query worker process, read from the environment."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from shared import limits
from shared.process.config import ProcessConfig, parse_port, parse_positive, parse_seconds, setting

DEFAULT_CACHE: Final = Path(tempfile.gettempdir()) / "polychrome-queryworker"


@dataclass(frozen=True)
class QueryWorkerConfig(ProcessConfig):
    """Settings of the query worker process."""

    host: str = setting("POLYCHROME_QUERYWORKER_HOST", "Address to listen on for frontends.", default="127.0.0.1")
    port: int = setting(
        "POLYCHROME_QUERYWORKER_PORT", "Port to listen on for frontends; 0: any free one.", default=0, parse=parse_port
    )
    advertise_host: str = setting(
        "POLYCHROME_QUERYWORKER_ADVERTISE_HOST",
        "Host under which frontends reach this worker; empty: the address it listens on, or, where that is a wildcard, "
        "the one that it reaches Redis from.",
        default="",
    )
    cache_dir: Path = setting(
        "POLYCHROME_QUERYWORKER_CACHE_DIR",
        "Directory for segment files; what is in it may be lost at any time.",
        default=DEFAULT_CACHE,
    )
    cache_bytes: int = setting(
        "POLYCHROME_QUERYWORKER_CACHE_BYTES",
        "Segment files that no loaded shard uses are deleted, the longest unused first, over this size.",
        default=4 * 1024**3,
        parse=parse_positive,
    )
    memory_bytes: int = setting(
        "POLYCHROME_QUERYWORKER_MEMORY_BYTES",
        "Shards are dropped from memory, the longest unused first, while they hold more than this.",
        default=2 * 1024**3,
        parse=parse_positive,
    )
    work_bytes: int = setting(
        "POLYCHROME_QUERYWORKER_WORK_BYTES",
        "Bytes of memory that answers and the work on them may take. A request that would take more than a quarter of "
        "them is refused with 400; requests of one tenant that together would take more than half, with 429.",
        default=1024**3,
        parse=parse_positive,
    )
    past_bytes: int = setting(
        "POLYCHROME_QUERYWORKER_PAST_BYTES",
        "Views of the past, for reads with `as_of`, are dropped from memory, the longest unused first, while they hold "
        "more than this.",
        default=512 * 1024**2,
        parse=parse_positive,
    )
    idle_s: float = setting(
        "POLYCHROME_QUERYWORKER_IDLE_S",
        "A shard that was not read for this long is dropped from memory.",
        default=3600.0,
        parse=parse_seconds,
    )
    threads: int = setting(
        "POLYCHROME_QUERYWORKER_THREADS",
        "Threads that execute reads; a tenant has at most so many at once, and others have one more then.",
        default=max(2, os.cpu_count() or 1),
        parse=parse_positive,
    )
    witness_bytes: int = setting(
        "POLYCHROME_QUERYWORKER_WITNESS_BYTES",
        "Bytes of the log that the worker keeps for a while once it has read them, to give them back should Redis come "
        "back with less.",
        default=limits.WITNESS_BYTES_MAX,
        parse=parse_positive,
    )
    witness_s: float = setting(
        "POLYCHROME_QUERYWORKER_WITNESS_S",
        "For how many seconds it keeps them.",
        default=limits.WITNESS_S_MAX,
        parse=parse_seconds,
    )
    heartbeat_s: float = setting(
        "POLYCHROME_QUERYWORKER_HEARTBEAT_S",
        "How often the worker announces itself; it counts as dead after three missed times.",
        default=1.0,
        parse=parse_seconds,
    )
