"""The attempts of one append, over lost connections and restorations of Redis.

An append is repeated under its request id, which the server remembers. A server that was restored remembers nothing:
an attempt whose answer was lost may have been applied before the loss, and may even be in a manifest. So an append
carries the epoch that its process knew when it began, and a collection that was restored in a later one refuses it:

```text
no answer was lost before    nothing was applied: it begins anew, in the present epoch
an answer was lost           its outcome is unknown for good
```
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import limits
from shared.errors import Unavailable, UnknownOutcome
from shared.redis.client import command, known_epoch, retry_idempotent, translate_error
from shared.redis.keys import Keys
from shared.redis.replication import attempt_replicated
from shared.redis.scripts import Argument, Script

APPEND_STOP_PAUSE_S: Final = 0.005
"""Seconds between two tries of an append while a rebuild has stopped appends to switch the collection's shards."""

APPEND_STOP_TRIES: Final = 1000
"""Tries before such an append is given up. A stop takes milliseconds, `rebuild.APPEND_STOP_MS` at most."""

REQUEST_KEY: Final = 1
"""The place, in KEYS of append.lua, of the key that remembers the request."""

Arguments = Callable[[int | None], Sequence[Argument]]
"""ARGV of append.lua, for an append that carries this epoch; None: whatever the epoch is by now."""


class AppendAttempts:
    """The attempts of one append. `epoch` is that in which the work on it began, when it must not be applied in a later
    one, else None; `replicas` is how many replicas of the server shall have it.
    """

    def __init__(
        self,
        redis: Redis,
        keys: Keys,
        script: Script,
        script_keys: Sequence[str],
        args: Arguments,
        epoch: int | None,
        replicas: int = 0,
    ) -> None:
        self._redis = redis
        self._keys = keys
        self._script = script
        self._script_keys = script_keys
        self._args = args
        self._fixed = epoch is not None
        self._epoch = known_epoch(redis) if epoch is None else epoch
        self._replicas = replicas
        self.replicas_reached = 0
        """How many replicas had the append when its last attempt ended, of those that it waits for."""
        self._answer_lost = False

    async def run(self, deadline_s: float) -> list[Any]:
        """The reply of append.lua, EPOCH only for an append that is bound to its epoch. Raises Unavailable when appends
        stay stopped, UnknownOutcome, Backoff.
        """
        for _ in range(APPEND_STOP_TRIES):
            reply: list[Any] = await retry_idempotent(self._attempt, writes=True, deadline_s=deadline_s)
            match reply:
                case [b"STOPPED"]:
                    await asyncio.sleep(APPEND_STOP_PAUSE_S)
                case [b"EPOCH", epoch]:
                    if self._answer_lost:
                        raise UnknownOutcome("Redis was restored in the middle of the append")
                    if self._fixed:
                        return reply
                    await self._begin_anew(epoch)
                case _:
                    return reply
        raise Unavailable("The collection's shards are being switched")

    async def _attempt(self) -> Any:
        try:
            return await self._run_script(self._args(self._epoch))
        except (RedisError, OSError) as error:
            if isinstance(translate_error(error, writes=True), UnknownOutcome):
                self._answer_lost = True
            raise

    async def _run_script(self, args: Sequence[Argument]) -> Any:
        if not self._replicas:
            return await self._script.attempt(self._redis, self._script_keys, args)
        touched, ttl_s = self._script_keys[REQUEST_KEY], limits.REQUEST_ID_TTL_S
        found = await attempt_replicated(
            self._redis, self._script, self._script_keys, args, self._replicas, touched=touched, ttl_s=ttl_s
        )
        self.replicas_reached = found.replicas
        return found.reply

    async def _begin_anew(self, refused_by: int) -> None:
        """Takes the cluster's present epoch. Raises Unavailable while the restoration has not ended."""
        call = ("HGET", self._keys.cluster, "epoch")
        found = await retry_idempotent(lambda: command(self._redis, *call), writes=False)
        if found is None or int(found) < refused_by:
            raise Unavailable("The log is being restored")
        self._epoch = int(found)
