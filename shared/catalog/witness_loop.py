"""A witness at work: it notices that Redis has restarted, and says what it knows before anybody is let in.

It has a connection of its own, which the epoch check (`shared.redis.fence`) does not keep out. A command that waits at
the server ends with the server, so that a restart is noticed at once, and costs nothing meanwhile.
"""

from __future__ import annotations

import asyncio
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared.catalog.cluster import ClusterMark
from shared.errors import PolychromeError, Unavailable
from shared.log.statements import Statements
from shared.log.witness import Witness
from shared.process.clock import Clock
from shared.process.concurrency import cancellations, require_uncancelled
from shared.process.telemetry import get_logger
from shared.redis.client import command, open_redis
from shared.redis.keys import Keys

RECONNECT_S: Final = 0.05
"""Pause, in seconds, between two tries to reach a server that is away, and between two looks whether it is open."""

ATTEND_S: Final = 1.0
"""Seconds for which a command waits for the server's end; well below the time for which the log service waits."""

ANNOUNCE_S: Final = 3.0
"""Seconds between two signs of life; well below `statements.ALIVE_S`."""

LEAVE_S: Final = 0.5

log = get_logger(__name__)


async def remembers_nothing(url: str, keys: Keys, name: str) -> None:
    """Says that the witness of this name has nothing to say: it is going, or it has just begun, under the name of one
    that died. When it cannot, the log service may wait for it in vain. Raises nothing, and takes LEAVE_S at most.
    """
    try:
        async with asyncio.timeout(LEAVE_S), open_redis(url) as redis:
            await Statements(redis, keys).leave(name)
    except (Unavailable, TimeoutError) as error:
        log.debug("witness_not_removed", error=str(error))


class WitnessLoop:
    """The loop of one witness, whose name is `name`."""

    def __init__(self, url: str, keys: Keys, witness: Witness, name: str, clock: Clock) -> None:
        self._url = url
        self._keys = keys
        self._witness = witness
        self._name = name
        self._clock = clock
        self._left = False

    async def run(self) -> None:
        """A loop, for ever."""
        while True:
            before = cancellations()
            try:
                async with open_redis(self._url) as redis:
                    await self._attend(redis)
            except (PolychromeError, RedisError, OSError) as error:
                require_uncancelled(before)
                log.debug("witness_disconnected", error=str(error))
            await self._clock.sleep(RECONNECT_S)

    async def leave(self) -> None:
        """Says that this witness is going. Raises nothing, and takes LEAVE_S at most."""
        self._left = True
        await remembers_nothing(self._url, self._keys, self._name)

    async def _attend(self, redis: Redis) -> None:
        """Makes a statement about this run of the server, if one is wanted, and then waits for its end."""
        mark, statements = ClusterMark(redis, self._keys), Statements(redis, self._keys)
        run = await mark.server_run()
        if not run.verified:
            heads = await statements.heads(self._witness.collections)
            beyond = self._witness.beyond(heads)
            await statements.state(run.id, self._name, beyond)
            if beyond.seen:
                log.warning("redis_has_less", appends=len(beyond.seen), entries_given=len(beyond.held))
        while not run.verified:
            await self._clock.sleep(RECONNECT_S)
            before, run = run, await mark.server_run()
            if run.id != before.id:
                return  # another run already: it wants a statement of its own
        await self._carry_over(mark, statements)
        announced_s = float("-inf")
        # A client connects again by itself: the end of the run may pass unseen between two commands, not for long. And
        # a server may lose everything while it runs.
        while await mark.server_run() == run:
            if not self._left and self._clock.monotonic() - announced_s >= ANNOUNCE_S:
                await statements.announce(self._name)
                announced_s = self._clock.monotonic()
            await command(redis, "BLPOP", self._keys.witnessed("", ""), ATTEND_S)

    async def _carry_over(self, mark: ClusterMark, statements: Statements) -> None:
        """Finds out which of the entries of earlier epochs the log goes on with: those can be given back once more. An
        answer that spans another restoration says nothing.
        """
        cluster = await mark.read()
        if cluster is None:
            return
        held = self._witness.of_earlier_epochs(cluster.epoch)
        there = await statements.in_log(held)
        if held and await mark.read() == cluster:
            self._witness.carry_over(held, there, cluster.epoch)
