"""The resources that a frontend process opens once, as one record: `frontend.service` fills it, `frontend.app` hands
each group of routes the members that it uses. No other module knows it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from frontend.access.authenticator import Authenticator
    from frontend.admission.admission import Admission
    from frontend.admission.stored_quotas import StoredQuotas
    from frontend.audit.log import AuditLog
    from frontend.collections.forking import Forker
    from frontend.collections.row_cache import RowCache
    from frontend.config import FrontendConfig
    from frontend.embed.embedders import Embedders
    from frontend.http.metering import RequestMetering
    from frontend.read.past import Past
    from frontend.read.workers import Workers
    from frontend.write.dirty import DirtyShards
    from frontend.write.durable import Durable
    from frontend.write.group_commit import GroupCommit
    from shared.catalog import Catalog
    from shared.catalog.functions import Functions
    from shared.log.log import Log
    from shared.objects.port import ObjectStore
    from shared.process.clock import Clock
    from shared.tenancy.erasure_store import ErasureStore
    from shared.tenancy.key_store import KeyStore
    from shared.tenancy.plan_store import PlanStore
    from shared.tenancy.usage_flush import UsageFlusher
    from shared.tenancy.usage_report import UsageReader


@dataclass(frozen=True, slots=True)
class Context:
    """The connections and caches of a frontend process. No member holds state that must not be lost."""

    config: FrontendConfig
    clock: Clock
    objects: ObjectStore
    catalog: Catalog
    log: Log
    dirty: DirtyShards
    durable: Durable
    groups: GroupCommit
    workers: Workers
    past: Past
    rows: RowCache
    embedders: Embedders
    forker: Forker
    functions: Functions
    key_store: KeyStore
    plan_store: PlanStore
    usage_reader: UsageReader
    erasures: ErasureStore
    admission: Admission
    stored: StoredQuotas
    authenticator: Authenticator | None
    """None while everybody may do everything."""
    audit: AuditLog | None = None
    """None when nothing is written down."""
    metering: RequestMetering | None = None
    usage: UsageFlusher | None = None
    """None, as the metering, where nothing is counted."""
