"""A memory budget for the long answers that a process reads: many at once take turns instead of filling the memory.

Counted is what has arrived and is not consumed yet, and what was granted to a server and may arrive at any moment. A
reader that gets no credit waits in a queue, and holds nothing but what it has still to consume. So waiting readers
never wait for each other, and the budget cannot be blocked but by readers that hold bytes and consume none; whoever
runs them has to cut those.

The first window of an answer is granted before anybody knows that the answer is long. So these are counted, and may
take the total over the budget by a window for each answer.
"""

from __future__ import annotations

from typing import Final, Protocol

from prometheus_client import Gauge

GRANT_BYTES_MIN: Final = 256 * 1024
"""Less is not granted, unless nothing at all is held: small grants cost a frame each."""

HELD_BYTES = Gauge(
    "polychrome_rpc_answer_bytes", "Bytes of long answers that were granted to servers, or came and are not consumed."
)


class CreditWaiter(Protocol):
    """Waits for credit."""

    def resume(self) -> None:
        """There is some: called once, and then forgotten until it asks again."""


class AnswerBudget:
    """Up to `bytes_max` bytes for all readers together."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._held = 0
        self._waiting: dict[CreditWaiter, None] = {}

    @property
    def held(self) -> int:
        """Bytes that all readers hold together or have asked for."""
        return self._held

    def count(self, size: int) -> None:
        """Counts bytes that are there or under way already, whether or not the budget has room for them."""
        self._held += size
        HELD_BYTES.inc(size)

    def take(self, reader: CreditWaiter, size: int) -> int:
        """How many of `size` bytes `reader` may hold more; they are counted. When there are none, or others wait, it is
        0, and `reader` is resumed when its turn comes.
        """
        free = self.bytes_max - self._held
        if (self._waiting and next(iter(self._waiting)) is not reader) or (free < GRANT_BYTES_MIN and self._held):
            self._waiting.setdefault(reader)
            return 0
        self._waiting.pop(reader, None)
        granted = min(size, max(free, 1))
        self.count(granted)
        return granted

    def give_back(self, size: int) -> None:
        """Counts bytes out that were consumed, or will not come. Readers that wait are resumed in their order."""
        self._held -= size
        HELD_BYTES.dec(size)
        while self._waiting and (self.bytes_max - self._held >= GRANT_BYTES_MIN or not self._held):
            reader = next(iter(self._waiting))
            reader.resume()
            self._waiting.pop(reader, None)  # also when it did not want it any more

    def forget(self, reader: CreditWaiter) -> None:
        """The reader does not wait any longer."""
        self._waiting.pop(reader, None)
