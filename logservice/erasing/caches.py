"""The caches on the disks of query workers and compactors: told what is erased, and asked whether they dropped it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shared.cluster.membership import Membership
from shared.process.clock import Clock
from shared.tenancy.erasure_marks import ErasureMarks
from shared.tenancy.erasures import Erasure, Remaining

PATIENCE_S: Final = 120.0
"""Longest wait for a cache that says nothing; then the receipt names its process."""


class Caches:
    """The caches of the live members of these roles. Raises Unavailable."""

    def __init__(self, marks: ErasureMarks, roles: Sequence[Membership], clock: Clock) -> None:
        self._marks = marks
        self._roles = roles
        self._clock = clock
        self._told_s: dict[str, float] = {}

    async def drop(self, erasure: Erasure) -> list[Remaining] | None:
        """Has all caches drop the erasure's segments. None while some have not; then those that said nothing for too
        long.
        """
        if not erasure.segments:
            return []
        now_s = self._clock.now()
        if erasure.id not in self._told_s:
            self._told_s[erasure.id] = now_s
            await self._marks.name_segments(erasure.segments, now_s)
        told_s = self._told_s[erasure.id]
        heard = await self._marks.heard()
        members = {member.id for role in self._roles for member in await role.members()}
        await self._marks.forget(heard.keys() - members)
        silent = sorted(member for member in members if heard.get(member, 0.0) < told_s)
        if silent and now_s - told_s < PATIENCE_S:
            return None
        del self._told_s[erasure.id]
        return [Remaining(f"cache of {member}", "the process has not said that it dropped it") for member in silent]
