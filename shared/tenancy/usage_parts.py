"""Rolled-up usage: what was used in an hour, as objects in the bucket.

`usage/<hour>/<number>.json` is a *part*: entries (`shared.tenancy.usage`) as they were known when it was written. Parts
never change. The last one of an hour contains those before it, and whoever reads several merges them, so it does not
matter which of them are there. A part is a checkpoint while its hour goes on; the *final* one is written when the hour
is over, and further final ones for what came even later.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

from shared.errors import Corrupt
from shared.objects.keys import parse_usage_key, usage_key, usage_prefix
from shared.objects.port import ObjectNotFound, ObjectStore
from shared.tenancy.usage import UsageEntry, merged

FORMAT: Final = 1


class UsagePart(msgspec.Struct, frozen=True, kw_only=True):
    """A part of what was used in the hour `hour` (`2026-12-01T02`, UTC). `sha256` is that of its bytes with an empty
    one in its place. `writer` names the process and the moment: racing writers have different bytes.
    """

    format: int = FORMAT
    hour: str
    number: int
    final: bool
    written_s: float
    writer: str
    entries: list[UsageEntry]
    sha256: str = ""

    def encode(self) -> bytes:
        """The bytes of its object."""
        blank = msgspec.json.encode(msgspec.structs.replace(self, sha256=""))
        member = _checksum_member(hashlib.sha256(blank).hexdigest())
        return blank.removesuffix(_checksum_member("")) + member


_PART: Final = msgspec.json.Decoder(UsagePart)


def decode_part(data: bytes, key: str) -> UsagePart:
    """The part with these bytes. Raises Corrupt when they are none, or those of another key."""
    try:
        part = _PART.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt(f"{key} is no usage: {error}", key) from error
    member = _checksum_member(part.sha256)
    blank = data.removesuffix(member) + _checksum_member("")
    if not data.endswith(member) or hashlib.sha256(blank).hexdigest() != part.sha256:
        raise Corrupt(f"{key} is damaged: its checksum is another one", key)
    if part.format != FORMAT or usage_key(part.hour, part.number) != key:
        raise Corrupt(f"{key} holds something else: part {part.number} of {part.hour}", key)
    return part


def _checksum_member(checksum: str) -> bytes:
    return f'"sha256":"{checksum}"}}'.encode()


class RolledHour(NamedTuple):
    """All that the bucket has of an hour: the parts that are there by number, the merged entries, whether a final part
    is among them, and the keys of parts that cannot be read, with what is wrong with them.
    """

    numbers: Sequence[int]
    checkpoints: Sequence[int]
    entries: list[UsageEntry]
    final: bool
    damaged: dict[str, str]


class UsageParts:
    """The parts in one bucket. Everything raises Unavailable while it is away."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    async def hours(self, beginning: str = "") -> dict[str, list[int]]:
        """The numbers of the parts of each hour whose name begins so, ascending."""
        found: dict[str, list[int]] = {}
        async for info in self._objects.list(usage_prefix(beginning)):
            parsed = parse_usage_key(info.key)
            if parsed is not None:
                found.setdefault(parsed[0], []).append(parsed[1])
        return found

    async def read(self, hour: str, numbers: Iterable[int]) -> RolledHour:
        """The hour, of the parts with these numbers. One that is gone was a checkpoint that a later one contains."""
        entries: list[UsageEntry] = []
        there: list[int] = []
        checkpoints: list[int] = []
        damaged: dict[str, str] = {}
        for number in numbers:
            key = usage_key(hour, number)
            try:
                part = await asyncio.to_thread(decode_part, await self._objects.get(key), key)
            except ObjectNotFound:
                continue
            except Corrupt as error:
                damaged[key] = error.message
                there.append(number)
                continue
            there.append(number)
            if not part.final:
                checkpoints.append(number)
            entries += part.entries
        final = len(checkpoints) + len(damaged) < len(there)
        return RolledHour(there, checkpoints, merged(entries), final, damaged)

    async def create(self, part: UsagePart) -> bool:
        """Creates the part unless its number is taken; whether it did. Raises UnknownOutcome."""
        data = await asyncio.to_thread(part.encode)
        return await self._objects.create(usage_key(part.hour, part.number), data)

    async def delete(self, hour: str, numbers: Iterable[int]) -> None:
        """Deletes checkpoints that a final part contains."""
        await self._objects.delete([usage_key(hour, number) for number in numbers])
