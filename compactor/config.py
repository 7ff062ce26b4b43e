"""The settings of a compactor, read from its environment. The table in docs/operations.md is made from them."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

from compactor.checkpoints import Pause, parse_pause
from shared.process.config import ProcessConfig, parse_positive, parse_seconds, setting


def _parse_lease(text: str) -> float:
    value = parse_seconds(text)
    if value < 1:
        raise ValueError("expected at least 1 second")
    return value


def _parse_nice(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 19:
        raise ValueError("expected 0 to 19")
    return value


@dataclass(frozen=True)
class CompactorConfig(ProcessConfig):
    """Settings of the compactor process."""

    scratch_dir: Path = setting(
        "POLYCHROME_COMPACTOR_SCRATCH_DIR",
        "Folder of this process alone: segments being built, and a cache of others. May be lost at any time.",
        default=Path(tempfile.gettempdir()) / "polychrome-compactor",
    )
    cache_bytes: int = setting(
        "POLYCHROME_COMPACTOR_CACHE_BYTES",
        "How much the cached segments may take in the scratch folder.",
        default=16 * 1024**3,
        parse=parse_positive,
    )
    threads: int = setting(
        "POLYCHROME_COMPACTOR_THREADS",
        "Threads that build the graph of one job.",
        default=max(1, os.cpu_count() or 1),
        parse=parse_positive,
    )
    concurrency: int = setting("POLYCHROME_COMPACTOR_CONCURRENCY", "Jobs at once.", default=1, parse=parse_positive)
    lease_s: float = setting(
        "POLYCHROME_COMPACTOR_LEASE_S",
        "How long a job stays with a compactor that says nothing; another one takes it after that.",
        default=15.0,
        parse=_parse_lease,
    )
    poll_s: float = setting(
        "POLYCHROME_COMPACTOR_POLL_S",
        "Pause before asking again when there is no job.",
        default=0.25,
        parse=parse_seconds,
    )
    fold_bytes: int = setting(
        "POLYCHROME_COMPACTOR_FOLD_BYTES",
        "Bytes of the log that one compaction takes at most; it needs about six times as much memory. "
        "Less brings rows into the index sooner, more copies large segments less often.",
        default=64 * 1024**2,
        parse=parse_positive,
    )
    nice: int = setting(
        "POLYCHROME_COMPACTOR_NICE",
        "How much this process gives way to others of the machine at least, 0 to 19; `polychrome up` sets 4.",
        default=0,
        parse=_parse_nice,
    )
    pause_at: Pause | None = setting(
        "POLYCHROME_COMPACTOR_PAUSE_AT",
        "For fault tests: `<step>:<seconds>`, a pause at a step of every job, to be killed there.",
        default=None,
        parse=parse_pause,
    )
