"""Old copies of the catalog in the bucket, which name what was deleted: snapshots and the journal."""

from __future__ import annotations

from logservice.catalog.snapshots import Snapshots
from logservice.catalog.stored import entry_names
from shared.catalog.replay import is_newer
from shared.objects.keys import SNAPSHOTS, parse_snapshot_key, snapshot_key
from shared.objects.port import ObjectStore


class CatalogCopies:
    """The copies in one bucket. Everything raises Unavailable."""

    def __init__(self, objects: ObjectStore, snapshots: Snapshots) -> None:
        self._objects = objects
        self._snapshots = snapshots

    async def next_number(self) -> int:
        """A number such that snapshots which have it or a later one are taken after this call."""
        return await self._snapshots.next_number()

    async def drop_before(self, number: int) -> bool:
        """Deletes all snapshots before this number, and all of the journal that was written before the newest one.
        False, and nothing was deleted: no snapshot has the number or a later one yet, or the newest is damaged.

        The newest one is written once more before that, under the next number, so that there are two of the same
        content when one is damaged later. Its number is drawn before the newest one is read: whatever another process
        writes meanwhile takes that number.
        """
        numbers = await self._numbers()
        if not any(known >= number for known in numbers):
            return False
        later = [known for known in numbers if known >= number]
        entries = await entry_names(self._objects)
        old = [snapshot_key(known) for known in numbers if known < number]
        next_number = await self._snapshots.next_number()
        newest = await self._snapshots.newest_readable()
        if newest is None or newest.numbers_passed:
            return False
        contained = [key for key, (epoch, change) in entries if not is_newer(epoch, change, newest.image)]
        if not old and not contained:
            return True
        if len(later) < 2 and not await self._snapshots.write(newest.image, next_number):
            return False
        await self._objects.delete([*old, *contained])
        return True

    async def _numbers(self) -> list[int]:
        found = [parse_snapshot_key(info.key) async for info in self._objects.list(SNAPSHOTS)]
        return sorted(number for number in found if number is not None)
