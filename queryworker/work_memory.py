"""The memory that answers and the work on them may take in this process, and the share of it that a tenant has.

What is claimed is an estimate, made before anything is built (`shared.process.work.Work.claim`); requests that take
little are not counted. One request may take a quarter of all, and the requests of one tenant together half: whatever
one tenant asks for, others find memory.
"""

from __future__ import annotations

import threading
from typing import Final

from prometheus_client import Gauge

from shared.errors import Backoff

REQUEST_SHARE: Final = 4
"""A request may take one part in so many of the memory."""

TENANT_SHARE: Final = 2
"""The requests of a tenant may together take one part in so many of the memory."""

WORK_BYTES = Gauge(
    "polychrome_queryworker_work_bytes", "Bytes that large requests being worked on have claimed for their answers."
)


class ProcessMemory:
    """Up to `bytes_max` bytes for the work of all tenants. Any number of threads may use it."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self.held = 0
        self._by_tenant: dict[str, int] = {}
        self._lock = threading.Lock()

    def take(self, tenant: str, size: int) -> None:
        """Counts so many bytes more for the tenant. Raises Backoff when it or all together hold too much."""
        with self._lock:
            own = self._by_tenant.get(tenant, 0) + size
            if own > self.bytes_max // TENANT_SHARE or self.held + size > self.bytes_max:
                raise Backoff("Too many large requests at once; backoff and try again")
            self._by_tenant[tenant] = own
            self.held += size
            WORK_BYTES.set(self.held)

    def give_back(self, tenant: str, size: int) -> None:
        """Counts bytes out that the tenant took."""
        with self._lock:
            own = self._by_tenant[tenant] - size
            if own:
                self._by_tenant[tenant] = own
            else:
                del self._by_tenant[tenant]
            self.held -= size
            WORK_BYTES.set(self.held)


class TenantMemory:
    """The memory for the work of one tenant, as `shared.process.work.WorkMemory`."""

    __slots__ = ("_process", "_tenant", "request_bytes_max")

    def __init__(self, process: ProcessMemory, tenant: str) -> None:
        self._process = process
        self._tenant = tenant
        self.request_bytes_max = process.bytes_max // REQUEST_SHARE

    def take(self, size: int) -> None:
        """Counts so many bytes more. Raises Backoff when the tenant or all together hold too much."""
        self._process.take(self._tenant, size)

    def give_back(self, size: int) -> None:
        """Counts bytes out that were taken."""
        self._process.give_back(self._tenant, size)
