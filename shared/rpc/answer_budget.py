"""A memory budget for the long answers that a process reads: many at once take turns instead of filling the memory.

Counted is what has arrived and is not consumed yet, and what was granted to a server and may arrive at any moment. A
reader that gets no credit waits in a queue, and holds nothing but what it has still to consume. So waiting readers
never wait for each other, and the budget cannot be blocked but by readers that hold bytes and consume none; whoever
runs them has to cut those.

Nobody knows beforehand which readers are slow. So each may hold a share only (`window`), smaller the more there are: it
takes hundreds of readers that stand still to fill the budget, and those that come then still find memory before.

The first window of an answer is granted before anybody knows that the answer is long. So these are counted, and may
take the total over the budget by a window for each answer.
"""

from __future__ import annotations

from typing import Final, Protocol

from prometheus_client import Gauge

GRANT_BYTES_MIN: Final = 256 * 1024
"""Less is not granted, unless nothing at all is held: small grants cost a frame each."""

FIRST_WINDOW_BYTES: Final = 256 * 1024
"""An answer that is no longer comes as a whole. Also what a server may send of a longer one before it is granted more,
in bytes."""

WINDOW_BYTES_MIN: Final = 2 * FIRST_WINDOW_BYTES
"""Bytes that each answer may have in memory and on the wire, however many answers there are."""

WINDOW_BYTES: Final = 4 * 1024 * 1024
"""Bytes that an answer may have in memory and on the wire at most. While the reader consumes so many, a server makes
the next piece; and they fill a connection of 1 Gbit/s with a round trip of 30 ms."""

SHARED_PART: Final = 1 / 8
"""The part of the budget that readers share evenly. The rest is for what each may have beyond that, and for readers
that come later, when the shares of the first are granted already."""

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
        self._readers = 0
        self._waiting: dict[CreditWaiter, None] = {}

    @property
    def held(self) -> int:
        """Bytes that all readers hold together or have asked for."""
        return self._held

    @property
    def window(self) -> int:
        """Bytes that each reader may hold or have asked for."""
        share = int(self.bytes_max * SHARED_PART) // max(1, self._readers)
        return min(WINDOW_BYTES, max(WINDOW_BYTES_MIN, share))

    def open(self, window: int) -> None:
        """An answer begins, and `window` bytes of it are under way."""
        self._readers += 1
        self.count(window)

    def close(self, reader: CreditWaiter, granted: int) -> None:
        """The reader's answer has ended; of what it was granted, `granted` bytes have not come."""
        self._readers -= 1
        self._waiting.pop(reader, None)
        self.give_back(granted)

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
