"""The part of a request that admission knows."""

from __future__ import annotations

from typing import Protocol

from frontend.access.access_table import Access
from frontend.admission.tenant_quotas import PlaceQuotas
from frontend.request_limits import RequestLimits


class Ticket(Protocol):
    """A request that was admitted, and counts as being worked on until its ticket is closed."""

    def close(self, bytes_in: int, bytes_out: int) -> None:
        """The request had a body and an answer of so many bytes."""
        ...


class AdmittedRequest(Protocol):
    """A request whose headers were read: `frontend.http.request`. Admission sets all but the last three members."""

    quotas: PlaceQuotas
    limits: RequestLimits
    ticket: Ticket | None
    path_params: dict[str, str]
    access: Access

    @property
    def content_length(self) -> int | None:
        """Length of its body as announced, None when it is not."""
        ...
