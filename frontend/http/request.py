"""A request as its handler finds it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from aiohttp import web

from frontend.http.memory_budget import MemoryBudget

if TYPE_CHECKING:
    from frontend.context import Context

RECEIVED_BODIES: Final = 16
PARSED_BODIES: Final = 2
"""Bodies of the greatest length that there is room for."""


@dataclass(slots=True)
class Bodies:
    """What request bodies may take, all requests together.

    `receiving` holds large bodies as text, `parsed` from their parsing on (by their bytes as text, of which each may
    become thirty). Both go by connection; whoever takes room leaves it when the request has ended.
    """

    bytes_max: int
    timeout_s: float
    receiving: MemoryBudget = field(init=False)
    parsed: MemoryBudget = field(init=False)

    def __post_init__(self) -> None:
        self.receiving = MemoryBudget(RECEIVED_BODIES * self.bytes_max)
        self.parsed = MemoryBudget(PARSED_BODIES * self.bytes_max)

    def release(self, connection: object) -> None:
        self.receiving.release(connection)
        self.parsed.release(connection)


class Request(web.BaseRequest):
    """`place` are the parameters in its path, decoded; `body_bytes` is how long its body was, 0 before it was read."""

    def __init__(self, context: Context, bodies: Bodies, *args: Any) -> None:
        super().__init__(*args)
        self.context = context
        self.bodies = bodies
        self.path_params: dict[str, str] = {}
        self.body_bytes = 0
