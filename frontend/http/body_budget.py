"""The memory budget of request bodies, of which a part is kept for those of middle length: they never wait behind long
ones, however many of those stall. Of each part, some is left for other tenants.
"""

from __future__ import annotations

from typing import Final

from frontend.http.memory_budget import MemoryBudget

MIDDLE_SHARE: Final = 0.25
"""Share of the budget that only bodies of middle length may take."""

MIDDLE_BYTES_SHARE: Final = 0.1
"""A body is of middle length up to this share of the longest one."""

TENANT_SHARE: Final = 0.75
"""Share of the budget, for bodies of middle length and for long ones, that bodies of one tenant may take."""


class BodyBudget:
    """Up to `bodies` bodies of `bytes_max` bytes at once. A body whose length is not known, or not true, counts as one
    of middle length until it is longer.
    """

    def __init__(self, bodies: float, bytes_max: int) -> None:
        self._middle_bytes_max = int(MIDDLE_BYTES_SHARE * bytes_max)
        total = int(bodies * bytes_max)
        self._middle = MemoryBudget(int(MIDDLE_SHARE * total), TENANT_SHARE)
        self._long = MemoryBudget(total - int(MIDDLE_SHARE * total), TENANT_SHARE)

    @property
    def bytes(self) -> int:
        """Bytes held by all holders together."""
        return self._middle.bytes + self._long.bytes

    async def acquire(self, holder: object, size: int, length: int | None = None, tenant: str = "") -> None:
        """Waits until `holder` may hold `size` bytes more of a body, and counts them. `length`: that of the whole body,
        as far as it is known. `tenant`: the one whose body it is.
        """
        held = self._middle.held(holder)
        is_long = max(held + size, length or 0) > self._middle_bytes_max
        if not is_long and not self._long.held(holder):
            await self._middle.acquire(holder, size, tenant)
            return
        await self._long.acquire(holder, held + size, tenant)
        self._middle.release(holder)

    def release(self, holder: object) -> None:
        """Gives back all that `holder` holds. A holder of nothing is allowed."""
        self._middle.release(holder)
        self._long.release(holder)
