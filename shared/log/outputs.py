"""The fields of a function's runs in the states of its output and of its inputs
(docs/design/2026-11-21-functions.md).

The output's state has its *provenance*: which run made its content, out of which manifests of the inputs. An input's
state has the id of its output, and how much of the input the function has seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

from redis.asyncio import Redis

from shared.errors import PolychromeError
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import Argument, Script

FUNCTION: Final = Script("shared.log", "function")


class ProvenanceConflict(PolychromeError):
    """Another run has given the output its content meanwhile: read it again, and compute anew."""

    code = "provenance_conflict"


@dataclass(frozen=True, slots=True)
class ProvenanceChange:
    """The provenance that an output must have, and the one that it gets; empty: no run has made its content yet.
    `epoch` is that of the output's state when the run began.
    """

    before: bytes
    after: bytes
    epoch: int


class Provenance(NamedTuple):
    """The provenance of an output's content, empty when no run has made it yet, and the epoch of the output's state."""

    content: bytes
    epoch: int


class Outputs:
    """Reads and changes these fields. Changes may be repeated after a lost answer. Everything raises Unavailable."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def provenance(self, output_id: str) -> Provenance:
        """The provenance of the output's content, as of one moment with the epoch."""
        made, epoch = await self._fields(output_id, "made", "epoch")
        return Provenance(made or b"", int(epoch or 0))

    async def set_provenance(self, output_id: str, change: ProvenanceChange) -> bool:
        """Changes the provenance of an output whose content stays as it is. False when its provenance is not
        `change.before`, its epoch another one, or when it is gone.
        """
        return await self._run(output_id, "made", change.epoch, change.before, change.after)

    async def output_of(self, input_id: str) -> str | None:
        """The id of the input's output, as far as the input's state knows."""
        [found] = await self._fields(input_id, "feeds")
        return None if found is None else found.decode()

    async def feed(self, input_id: str, output_id: str, versions: int) -> None:
        """Notes that the collection is an input now. `versions`, the sum of its manifests' versions, are yet to be seen
        by the function.
        """
        await self._run(input_id, "feed", output_id, versions)

    async def note_run(self, input_id: str, epoch: int, output_id: str, run: str, versions: int) -> None:
        """Notes that the function has seen the input's manifests up to this sum of their versions, when the input's
        state was of this epoch; nothing when it is of another by now. The name `run` is another one for each run.
        """
        await self._run(input_id, "ran", epoch, output_id, run, versions)

    async def unfeed(self, input_id: str, output_id: str) -> None:
        """Notes that the collection is no input of this output any more."""
        await self._run(input_id, "unfeed", output_id)

    async def _fields(self, collection_id: str, *names: str) -> list[bytes | None]:
        call = ("HMGET", self._keys.state(collection_id), *names)
        found: list[bytes | None] = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        return found

    async def _run(self, collection_id: str, *args: Argument) -> bool:
        return bool(await FUNCTION.run(self._redis, [self._keys.state(collection_id)], args))
