"""The views of one shard: the newest, and for a while the one that it replaced."""

from __future__ import annotations

import asyncio
from typing import Final

from queryworker.view.read_view import ReadView
from queryworker.view.shard_view import ShardView
from shared.process.clock import Clock

RETIRED_VIEW_S: Final = 30.0
"""How long a replaced view serves reads as of positions that the new one does not reach back to."""


class Views:
    """See the module."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.newest: ShardView | None = None
        self._retired: tuple[ShardView, float] | None = None
        self.moving = asyncio.Lock()
        """Held while the newest view is moved forward, and while another one takes over its tail."""

    def replace(self, view: ShardView) -> None:
        """That is the newest from now on."""
        old, self.newest = self.newest, view
        if old is not None:
            self._retired = (old, self._clock.monotonic() + RETIRED_VIEW_S)

    def read_view(self, view: ShardView, as_of: int) -> ReadView:
        """The shard as of a position, from this view or from the one before. Raises StaleRead."""
        if as_of < view.manifest.covers and self._retired is not None:
            retired = self._retired[0]
            if retired.manifest.covers <= as_of <= retired.position:
                return retired.read_view(as_of)
        return view.read_view(as_of)

    @property
    def bytes(self) -> int:
        """About what they hold in memory."""
        views = [self.newest, self._retired[0] if self._retired else None]
        return sum(view.bytes for view in views if view is not None)

    def drop_retired(self) -> None:
        """Let go of a replaced view whose time is over."""
        if self._retired is not None and self._clock.monotonic() >= self._retired[1]:
            self._retired = None

    def forget(self) -> None:
        self.newest = self._retired = None
