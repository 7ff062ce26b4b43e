"""A request as its handler gets it, and the memory that the bodies of all requests may take."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from frontend.access.access_table import PUBLIC, Access
from frontend.access.authorization import Hidden, require
from frontend.admission.request_view import Ticket
from frontend.admission.tenant_quotas import NO_QUOTAS, PlaceQuotas
from frontend.http.body_budget import BodyBudget
from frontend.request_limits import RequestLimits
from shared.tenancy.actions import Action
from shared.tenancy.principal import ANONYMOUS, Principal
from shared.tenancy.quotas import Quota

RECEIVED_BODIES: Final = 16
"""Number of bodies of the greatest length that may be held as text at once."""

PARSED_BODIES: Final = 2
"""Number of bodies of the greatest length that may be parsed at once."""

UNKNOWN: Final = "unknown"
"""The pattern of requests that no route is for, in metrics and in logs."""


@dataclass(slots=True)
class Bodies:
    """The limits of request bodies: of each (`bytes_max`, and `timeout_s` and `rate_min`, in bytes a second, for its
    arrival), and of all together.

    `receiving` counts the bytes of large bodies as text; `parsed` counts them from their parsing on, by their bytes as
    text, each of which may become thirty bytes of objects. The holder of both budgets is the connection, which gives
    back all that it holds when its request has ended.
    """

    bytes_max: int
    timeout_s: float
    rate_min: int = 0
    receiving: BodyBudget = field(init=False)
    parsed: BodyBudget = field(init=False)

    def __post_init__(self) -> None:
        self.receiving = BodyBudget(RECEIVED_BODIES, self.bytes_max)
        self.parsed = BodyBudget(PARSED_BODIES, self.bytes_max)

    def release(self, connection: object) -> None:
        """Gives back what the connection holds of both budgets."""
        self.receiving.release(connection)
        self.parsed.release(connection)


class Request(web.BaseRequest):
    """An HTTP request. `limits` are what it may hold; `path_params` are the parameters in its path, decoded;
    `body_bytes` is the length of its body, 0 before the body was read; `send_timeout_s` is how long its client may take
    next to nothing of the response.

    `access` and `pattern` are those of the route that was found. `subject` is the name or the id of what the request
    has made, for the audit log, and `subject_tenant` its tenant where the path names none: the handler says it.
    `quotas` are those of its tenant at the place that it is about; of what it may hold `limits` say it all.

    `tenant` is the one whose work it is: the sender's, or for a sender that is not bound to one that of the path, or
    else empty. `principal` is set before any handler runs. `hidden` is what of the path is outside of its scope:
    `path_params` have a stand-in for it.
    """

    access: Access = PUBLIC
    pattern: str = UNKNOWN
    subject: str = ""
    subject_tenant: str = ""
    tenant: str = ""
    principal: Principal = ANONYMOUS
    hidden: Hidden | None = None
    quotas: PlaceQuotas = NO_QUOTAS
    ticket: Ticket | None = None
    """Closed when the request has been answered."""

    def __init__(self, bodies: Bodies, limits: RequestLimits, send_timeout_s: float, *args: Any) -> None:
        super().__init__(*args)
        self.bodies = bodies
        self.limits = limits
        self.send_timeout_s = send_timeout_s
        self.path_params: dict[str, str] = {}
        self.body_bytes = 0

    def check_quota(self, quota: Quota, usage: float, most: float | None = None) -> None:
        """Raises QuotaExceeded when the usage is more than `most`, or else than the quota allows."""
        self.quotas.check(quota, usage, self.access.actions or self.access.any_of, most)

    def require(self, *actions: Action) -> None:
        """Raises PermissionDenied unless the principal has all of these actions: for what only the body tells. What is
        hidden is answered as missing, whatever the body wants.
        """
        if self.hidden is None:
            require(self.principal, *actions)
