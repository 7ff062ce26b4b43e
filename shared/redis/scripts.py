"""Server-side scripts: each stands in a .lua file beside the module that runs it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any, Final

import msgspec
from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from shared.redis.client import command, retry_idempotent

PIPELINE_MAX: Final = 500
"""Commands sent in one go: enough to hide the round trip, few enough not to hold up other clients."""

Argument = str | bytes | int | memoryview
"""An argument of a script, as redis-py sends it."""

packed: Final = msgspec.msgpack.Encoder().encode
"""A value as one argument of a script, which unpacks it by `cmsgpack`: lists, numbers and text, no byte strings."""


class Script:
    """A script, known to the server by its hash once it has run there.

    `package` and `name` say where its text is; `uses` names files beside it whose functions it needs. `flags` are the
    server's flags of the script, in place of those in its first line; '' for none.
    """

    def __init__(self, package: str, name: str, *, uses: Sequence[str] = (), flags: str | None = None) -> None:
        shebang, own = _text(package, name).split("\n", 1)  # the server wants the flags in the first line
        if flags is not None:
            shebang = f"#!lua flags={flags}" if flags else "#!lua"
        self.text = "\n".join([shebang, *(_text(package, used) for used in uses), own])
        self.sha = hashlib.sha1(self.text.encode()).hexdigest()  # noqa: S324  # the server's own name for it

    async def run(
        self,
        redis: Redis,
        keys: Sequence[str],
        args: Sequence[Argument] = (),
        *,
        writes: bool = True,
        deadline_s: float | None = None,
    ) -> Any:
        """Runs the script and returns its reply; repeated until it is answered, which `retry_idempotent` bounds and
        whose errors it raises. Every script is written so that a second run does no harm.
        """
        return await retry_idempotent(lambda: self.attempt(redis, keys, args), writes=writes, deadline_s=deadline_s)

    async def attempt(self, redis: Redis, keys: Sequence[str], args: Sequence[Argument] = ()) -> Any:
        """Runs the script once, for `retry_idempotent`: raises redis-py's errors."""
        try:
            return await command(redis, "EVALSHA", self.sha, len(keys), *keys, *args)
        except NoScriptError:  # a server that restarted has forgotten it; EVAL teaches it again
            return await command(redis, "EVAL", self.text, len(keys), *keys, *args)

    async def run_many(self, redis: Redis, calls: Iterable[tuple[Sequence[str], Sequence[Argument]]]) -> list[Any]:
        """Runs the script once for each (keys, args), pipelined, and returns the replies in their order. Repeats it as
        `run` does.
        """
        answers: list[Any] = []
        pending = list(calls)
        if len(pending) == 1:  # without the script's text, and over the connection of small commands
            return [await self.run(redis, *pending[0])]
        for start in range(0, len(pending), PIPELINE_MAX):
            answers.extend(await self._run_some(redis, pending[start : start + PIPELINE_MAX]))
        return answers

    async def _run_some(self, redis: Redis, calls: list[tuple[Sequence[str], Sequence[Argument]]]) -> list[Any]:
        async def attempt() -> list[Any]:
            async with redis.pipeline(transaction=False) as pipeline:
                pipeline.execute_command("SCRIPT LOAD", self.text)
                for keys, args in calls:
                    pipeline.execute_command("EVALSHA", self.sha, len(keys), *keys, *args)
                answers: list[Any] = await pipeline.execute()
                return answers[1:]

        return await retry_idempotent(attempt, writes=True)


def _text(package: str, name: str) -> str:
    return (resources.files(package) / f"{name}.lua").read_text("utf-8")
