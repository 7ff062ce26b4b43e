"""Has a Redis server write its append-only file anew, so that what was deleted is in no file of it any more."""

from __future__ import annotations

from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, ResponseError

from shared.errors import Unavailable
from shared.process.clock import Clock
from shared.redis.client import command, translated_errors

POLL_S: Final = 0.2


class AppendOnlyFile:
    """The append-only file of one server."""

    def __init__(self, redis: Redis, clock: Clock) -> None:
        self._redis = redis
        self._clock = clock

    async def rewrite(self, deadline_s: float) -> str | None:
        """Returns None once the file was written anew after this call, or there is none; or why this server does not
        let us. Raises Unavailable when it failed or took longer than `deadline_s` seconds: to be tried again.
        """
        give_up_s = self._clock.monotonic() + deadline_s
        with translated_errors():
            try:
                before = await self._settled(give_up_s)
                if not int(before.get("aof_enabled", 0)):
                    return None
                await command(self._redis, "BGREWRITEAOF")
                after = await self._settled(give_up_s)
            except NoPermissionError as error:
                return f"the server does not let us: {error}"
            except ResponseError as error:
                if "unknown command" in str(error).lower():
                    return f"the server does not let us: {error}"
                raise Unavailable(f"the append-only file was not written anew: {error}") from error
        if after.get("aof_last_bgrewrite_status") != "ok":
            raise Unavailable("the append-only file was not written anew: the server's log says why")
        return None

    async def _settled(self, give_up_s: float) -> dict[str, Any]:
        """The server's account of its files, once no rewriting is under way or planned."""
        while True:
            found: dict[str, Any] = await command(self._redis, "INFO", "persistence")
            if not int(found.get("aof_rewrite_in_progress", 0)) and not int(found.get("aof_rewrite_scheduled", 0)):
                return found
            if self._clock.monotonic() > give_up_s:
                raise Unavailable("the append-only file is still being written anew")
            await self._clock.sleep(POLL_S)
