"""The rendezvous of witnesses and the log service in a Redis that restarted and is not open yet.

```text
witness      reads the heads that Redis has, gives back what it holds beyond them, and makes its statement
log service  waits for the statements of the witnesses that were there before, and takes what they gave
```

Everything of one run of the server lies under that run's name, and expires. Everything raises Unavailable.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from shared.log.witness import Beyond, Held, Seen
from shared.redis.client import command, retry_idempotent
from shared.redis.keys import Keys
from shared.redis.scripts import PIPELINE_MAX, Argument, Script

_HELD_ENTRIES: Final = msgspec.msgpack.Decoder(list[Held])

STATEMENTS: Final = Script("shared.log", "statements")

HELD: Final = Script("shared.log", "held")

HELD_PAGE: Final = 64
"""Entries that are looked for at a time: each is taken out of its stream with its payload, inside the server."""

STATEMENT_TTL_S: Final = 900
"""Seconds after which what witnesses gave is gone, if no log service took it."""

GIVEN_BYTES: Final = 4 * 1024 * 1024
"""About how many bytes are given at a time."""

ALIVE_S: Final = 10.0
"""A witness counts as there, if it was heard so many seconds before the last one that was heard, or later."""

FINDINGS: Final = b""
"""The name under which the log service keeps what it found, beside the statements."""


class Statement(msgspec.Struct, frozen=True):
    """The statement of a witness: how many entries it gave back, and what it has seen beyond the heads in Redis."""

    entries: int
    seen: list[Seen]


_STATEMENT: Final = msgspec.json.Decoder(Statement)


class Statements:
    """The statements of witnesses. `run` is the id of the server's run."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def announce(self, witness: str) -> None:
        """Says that the witness is there; to be repeated within ALIVE_S."""
        await self._run("", witness, "announce", witness)

    async def leave(self, witness: str) -> None:
        """Says that the witness is going, and nobody need wait for it."""
        await self._run("", witness, "leave", witness)

    async def expected(self) -> set[str]:
        """The witnesses that were there when the server was last alive."""
        call = ("ZRANGE", self._keys.witnesses, 0, -1, "WITHSCORES")
        flat: Sequence[bytes] = await self._ask(*call)
        heard = dict(zip(flat[0::2], map(float, flat[1::2]), strict=True))
        newest_ms = max(heard.values(), default=0.0)
        return {name.decode() for name, ms in heard.items() if ms >= newest_ms - 1000 * ALIVE_S}

    async def heads(self, collections: Iterable[str]) -> dict[str, int]:
        """The heads of these collections; 0 of those that Redis does not know, or whose head is no number. Deleted ones
        are left out.
        """
        names, found = list(collections), dict[str, int]()
        for start in range(0, len(names), PIPELINE_MAX):
            some = names[start : start + PIPELINE_MAX]

            async def ask(some: Sequence[str] = some) -> list[list[bytes | None]]:
                async with self._redis.pipeline(transaction=False) as pipeline:
                    for name in some:
                        pipeline.hmget(self._keys.state(name), ["head", "deleted"])
                    rows: list[list[bytes | None]] = await pipeline.execute()
                    return rows

            for name, (head, deleted) in zip(some, await retry_idempotent(ask, writes=False), strict=True):
                if deleted is None:
                    found[name] = int(head or 0) if head is None or head.isdigit() else 0
        return found

    async def state(self, run: str, witness: str, beyond: Beyond) -> None:
        """Gives back what is beyond the heads, and makes the statement."""
        await self._ask("DEL", self._keys.witnessed(run, witness), writes=True)  # of an earlier try
        some: list[Held] = []
        for number, held in enumerate(beyond.held, start=1):
            some.append(held)
            if number == len(beyond.held) or sum(len(each.payload) for each in some) >= GIVEN_BYTES:
                await self._run(run, witness, "give", STATEMENT_TTL_S, msgspec.msgpack.encode(some))
                some = []
        statement = msgspec.json.encode(Statement(len(beyond.held), beyond.seen))
        await self._run(run, witness, "state", STATEMENT_TTL_S, witness, statement)

    async def in_log(self, held: Iterable[Held]) -> list[Held]:
        """Those of these entries that the log has."""
        by_stream, found = defaultdict[str, list[Held]](list), list[Held]()
        for each in held:
            by_stream[self._keys.log(each.collection, each.shard)].append(each)
        for stream, entries in by_stream.items():
            for start in range(0, len(entries), HELD_PAGE):
                some = entries[start : start + HELD_PAGE]
                args = [argument for each in some for argument in (each.id, each.checksum)]
                there: list[int] = await HELD.run(self._redis, [stream], args, writes=False)
                found += [each for each, is_there in zip(some, there, strict=True) if is_there]
        return found

    async def made(self, run: str) -> dict[str, Statement]:
        """The statements that were made so far, by witness."""
        found: Mapping[bytes, bytes] = await self._ask("HGETALL", self._keys.statements(run))
        return {name.decode(): _STATEMENT.decode(text) for name, text in found.items() if name != FINDINGS}

    async def given(self, run: str, witness: str) -> list[Held]:
        """The entries that the witness gave back."""
        chunks: Sequence[bytes] = await self._ask("LRANGE", self._keys.witnessed(run, witness), 0, -1)
        return [held for chunk in chunks for held in _HELD_ENTRIES.decode(chunk)]

    async def keep_findings(self, run: str, findings: bytes) -> None:
        """Keeps what the log service found, for one that goes on should this one die."""
        await self._run(run, "", "state", STATEMENT_TTL_S, FINDINGS, findings)

    async def findings(self, run: str) -> bytes | None:
        """The findings of a log service before; None when none has."""
        found: bytes | None = await self._ask("HGET", self._keys.statements(run), FINDINGS)
        return found

    async def clear(self, run: str, witnesses: Iterable[str]) -> None:
        """Removes everything of this run."""
        lists = [self._keys.witnessed(run, witness) for witness in witnesses]
        await self._ask("UNLINK", self._keys.statements(run), *lists, writes=True)

    async def _ask(self, *call: Any, writes: bool = False) -> Any:
        return await retry_idempotent(lambda: command(self._redis, *call), writes=writes)

    async def _run(self, run: str, witness: str, *args: Argument) -> None:
        keys = [self._keys.witnesses, self._keys.statements(run), self._keys.witnessed(run, witness)]
        await STATEMENTS.run(self._redis, keys, args)
