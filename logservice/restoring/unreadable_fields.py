"""Fields of a collection's state whose bytes changed into something that cannot be read count as lost: they are named,
removed, and filled in again like lost ones (`logservice.restoring.recover`, `logservice.restoring.lost_alone`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from shared.catalog import Collection
from shared.catalog.damage import Damage, DamageKind
from shared.catalog.image import CollectionImage, Images
from shared.log.naming import state_name
from shared.process.clock import Clock
from shared.process.telemetry import get_logger

RESTORING: Final = "it counts as lost, and is being restored"
VALUE_BYTES_MAX: Final = 60
"""Most bytes of a field's value that are shown."""
RESTORED_MAX: Final = 100
"""Most restored states that the report of the last loss keeps."""

log = get_logger(__name__)


class UnreadableFields:
    """Removes them, and says what was restored. `by` names the process in the registry of damage. Everything raises
    Unavailable.
    """

    def __init__(self, images: Images, clock: Clock, by: str = "logservice") -> None:
        self._damages = images.damages
        self._images = images
        self._clock = clock
        self._by = by
        self._dropped: dict[str, list[str]] = {}
        """The names of the fields that were removed, by collection, until its state is whole again."""

    async def drop(self, collection: CollectionImage) -> None:
        """Removes the fields of the collection's state that cannot be read, and names them in the log and in the
        registry of damage.
        """
        found = await self._images.drop_unreadable(collection)
        if not found:
            return
        self._dropped[collection.id] = sorted({*found, *self._dropped.get(collection.id, ())})
        values = {name: repr(value[:VALUE_BYTES_MAX]) for name, value in sorted(found.items())}
        log.error("state_unreadable", collection=collection.id, name=collection.name, fields=values)
        shown = ", ".join(f"{name} was {value}" for name, value in values.items())
        name, now_s = state_name(collection.id), self._clock.now()
        await self._damages.report(
            Damage(name, DamageKind.STATE, f"could not be read: {shown}", RESTORING, self._by, now_s, collection.id)
        )

    async def restored(self, collection: CollectionImage) -> None:
        """Says that the collection's state is whole again: in the report of the last loss, and in the registry of
        damage, which forgets it.
        """
        await self.refilled(collection, self._dropped.pop(collection.id, []))
        await self._damages.clear([state_name(collection.id)])

    async def refilled(self, collection: CollectionImage | Collection, fields: Sequence[str]) -> None:
        """Adds to the report of the last loss that these fields of the collection's state were filled in again."""
        now_s = self._clock.now()
        await self._images.amend_report(lambda report: with_restored_state(report, collection, fields, now_s))


def with_restored_state(
    report: Mapping[str, Any] | None, collection: CollectionImage | Collection, fields: Sequence[str], at_s: float
) -> dict[str, Any]:
    """The report of the last loss with one more state that was restored alone; `fields` could not be read or were
    missing, none where that is not known.
    """
    before = (report or {}).get("restored_states", [])
    restored = {"collection": collection.id, "name": collection.name, "fields": list(fields), "at_s": at_s}
    return {**(report or {}), "restored_states": [*before, restored][-RESTORED_MAX:]}
