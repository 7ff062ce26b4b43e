"""What a caller is told when one operation needed several tries, and they failed in different ways."""

from __future__ import annotations

import pytest
import redis.exceptions as failures

from shared.errors import Backoff, Unavailable, UnknownOutcome
from shared.redis.client import NotConnected, retry_idempotent


class Attempts:
    """Fails in these ways, one after the other, then for ever in the last one."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)

    async def __call__(self) -> None:
        raise self._errors.pop(0) if len(self._errors) > 1 else self._errors[0]


async def test_a_full_server_after_a_lost_answer_does_not_say_that_nothing_was_written() -> None:
    """The try whose answer was lost may have been applied, and a full server refuses to even look that up."""
    attempts = Attempts(failures.ConnectionError("lost"), failures.OutOfMemoryError("OOM"))
    with pytest.raises(UnknownOutcome):
        await retry_idempotent(attempts, writes=True, deadline_s=0.2)


async def test_a_full_server_is_told_at_once_when_nothing_was_sent_before() -> None:
    with pytest.raises(Backoff):
        await retry_idempotent(
            Attempts(NotConnected("away"), failures.OutOfMemoryError("OOM")), writes=True, deadline_s=5.0
        )


async def test_reads_that_lost_their_connection_are_merely_unavailable() -> None:
    with pytest.raises(Unavailable) as caught:
        await retry_idempotent(Attempts(failures.ConnectionError("lost")), writes=False, deadline_s=0.2)
    assert type(caught.value) is Unavailable
