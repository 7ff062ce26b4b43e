"""How many frontends are alive: the witnesses among whose names theirs are."""

from __future__ import annotations

from typing import Final

from shared.log.statements import Statements

WITNESS_ROLE: Final = "frontend"
"""The first word of the name that a frontend has as a witness."""


class LiveFrontends:
    """Counts frontends by their signs of life, each of which counts for ten seconds."""

    def __init__(self, statements: Statements) -> None:
        self._statements = statements

    async def count(self) -> int:
        """The number of frontends, this one included as soon as it was heard. Raises Unavailable."""
        return sum(name.startswith(f"{WITNESS_ROLE} ") for name in await self._statements.expected())
