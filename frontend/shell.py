"""What every handler works with, opened once by `frontend.service`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frontend.config import FrontendConfig
    from frontend.dirty import DirtyShards
    from frontend.embedders import Embedders
    from frontend.forking import Forker
    from frontend.group_commit import GroupCommit
    from frontend.rows import RowCache
    from frontend.workers import Workers
    from shared.catalog import Catalog
    from shared.catalog.functions import Functions
    from shared.clock import Clock
    from shared.log.jobs import Jobs
    from shared.log.log import Log


@dataclass(frozen=True, slots=True)
class Shell:
    """The frontend's edges. Nothing here holds state that matters: `rows` is a cache."""

    config: FrontendConfig
    clock: Clock
    catalog: Catalog
    log: Log
    jobs: Jobs
    dirty: DirtyShards
    groups: GroupCommit
    workers: Workers
    rows: RowCache
    embedders: Embedders
    forker: Forker
    functions: Functions
