"""The views of one shard that serve reads: the newest, and for a while the one that it replaced."""

from __future__ import annotations

import asyncio
from typing import Final

from queryworker.view.read_view import ReadView
from queryworker.view.shard_view import ShardView
from shared.process.clock import Clock

REPLACED_VIEW_S: Final = 30.0
"""Time for which a replaced view serves reads as of positions that the new one does not reach back to."""


class ShardViews:
    """The newest view of a shard and the one before it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.newest: ShardView | None = None
        self._replaced: tuple[ShardView, float] | None = None
        """The view before the newest, and until when it is kept."""
        self.advancing = asyncio.Lock()
        """Held while the newest view is moved forward, and while another one takes over its tail."""

    def replace(self, view: ShardView) -> None:
        """Make this the newest view."""
        old, self.newest = self.newest, view
        if old is not None:
            self._replaced = (old, self._clock.monotonic() + REPLACED_VIEW_S)

    def read_view(self, view: ShardView, as_of: int) -> ReadView:
        """The shard as of a position, from this view or from the one before it. Raises StaleRead for a position that
        neither reaches.
        """
        if as_of < view.manifest.covers and self._replaced is not None:
            replaced = self._replaced[0]
            if replaced.manifest.covers <= as_of <= replaced.position:
                return replaced.read_view(as_of)
        return view.read_view(as_of)

    @property
    def bytes(self) -> int:
        """About how much memory the views take."""
        views = [self.newest, self._replaced[0] if self._replaced else None]
        return sum(view.bytes for view in views if view is not None)

    def drop_expired(self) -> None:
        """Let go of a replaced view whose time is over."""
        if self._replaced is not None and self._clock.monotonic() >= self._replaced[1]:
            self._replaced = None

    def clear(self) -> None:
        """Let go of all views."""
        self.newest = self._replaced = None
