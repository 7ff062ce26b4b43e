"""Long answers on their way out of a server: no more of one leaves than its caller has granted.

A long answer is sent in slices. On each connection the answers that have credit take turns, a slice each, as long as
the connection takes them; short answers pass all of them by. So neither a caller that reads slowly nor one that reads a
lot holds up the others on the same connection:

```text
long answers    A  ▒▒▒▒       no credit: waits
                B  ▒▒ ▒▒ ▒▒   ─┐
                C  ▒▒ ▒▒      ─┼─►  B C x B C y B
short answers   x  y          ─┘
```

What waits is bounded: in bytes by `UnsentBytes`, for all connections of a server together, and in time by the calls'
deadlines. An answer that is still being made keeps the data that it is made of in memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from shared import limits

SLICE_BYTES: Final = 512 * 1024
"""Most bytes of one answer that are sent before it is the turn of another."""

UNLIMITED: Final = 1 << 62
"""Credit of a caller that grants none: it takes everything."""


class SliceSender(Protocol):
    """The call that is answered. `done`: it has ended, however that was."""

    @property
    def done(self) -> bool: ...

    def send_slice(self, payload: memoryview, *, is_last: bool) -> None:
        """Sends the next bytes of the answer; the last ones end the call."""

    def cut(self) -> None:
        """Fails the call: its caller reads too slowly, and others need the memory."""


class LongAnswer:
    """The answer to one call. One piece of it at most is held, and the next is made when that has been sent."""

    __slots__ = ("_is_last", "_pending", "_unsent", "_wanted", "credit", "held_bytes", "sender")

    def __init__(self, sender: SliceSender, credit: int) -> None:
        """`credit`: bytes that may be sent until more is granted."""
        self.sender = sender
        self.credit = credit
        self.held_bytes = 0
        self._pending = False
        self._is_last = False
        self._unsent = memoryview(b"")
        self._wanted: Callable[[], None] | None = None

    def hold(self, payload: bytes, wanted: Callable[[], None] | None) -> None:
        """The next piece. `wanted` is called once all of it has been sent; None makes it the last piece."""
        self._pending, self._is_last, self._wanted = True, wanted is None, wanted
        self._unsent, self.held_bytes = memoryview(payload), len(payload)

    @property
    def may_send(self) -> bool:
        """Whether a piece waits, and there is credit for it. An empty one needs none."""
        return self._pending and (self.credit > 0 or not self._unsent)

    def send_slice(self) -> None:
        """Sends what one turn allows."""
        size = min(SLICE_BYTES, self.credit, len(self._unsent))
        payload, self._unsent = self._unsent[:size], self._unsent[size:]
        self.credit -= size
        sent_all = not self._unsent
        if size or self._is_last:
            self.sender.send_slice(payload, is_last=sent_all and self._is_last)
        if sent_all:
            self._pending, self.held_bytes = False, 0
            wanted, self._wanted = self._wanted, None
            if wanted is not None:
                wanted()

    def close(self) -> None:
        """Nothing more is sent. Lets go of what is held, and of what would make more of it, without waiting for the
        garbage collector.
        """
        self._pending, self.held_bytes = False, 0
        self._unsent, self._wanted = memoryview(b""), None


class UnsentBytes:
    """Counts the bytes that the long answers of a server hold. While there are too many, those answers are cut whose
    callers have taken nothing for longest.
    """

    def __init__(self, bytes_max: int = limits.RPC_UNSENT_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._held: dict[LongAnswer, int] = {}  # those that moved last come last
        self.total = 0

    def moved(self, answer: LongAnswer) -> None:
        """The answer holds another piece, or some of it was sent."""
        self.forget(answer)
        if answer.held_bytes:
            self._held[answer] = answer.held_bytes
            self.total += answer.held_bytes
        while self.total > self._bytes_max and len(self._held) > 1:
            slowest = next(iter(self._held))
            slowest.sender.cut()
            self.forget(slowest)

    def forget(self, answer: LongAnswer) -> None:
        """The answer holds nothing any more."""
        self.total -= self._held.pop(answer, 0)


class SendQueue:
    """The long answers of one connection, and whose turn it is."""

    def __init__(self, unsent: UnsentBytes) -> None:
        self._unsent = unsent
        self._answers: set[LongAnswer] = set()
        self._turns: dict[LongAnswer, None] = {}

    def __len__(self) -> int:
        """The number of answers that have begun and not ended."""
        return len(self._answers)

    def hold(self, answer: LongAnswer, payload: bytes, wanted: Callable[[], None] | None) -> None:
        """Queues the next piece of an answer, as `LongAnswer.hold` takes it."""
        self._answers.add(answer)
        answer.hold(payload, wanted)
        self._queue(answer)
        self._unsent.moved(answer)

    def grant(self, answer: LongAnswer, size: int) -> None:
        """Grants the sending of so many more bytes of the answer."""
        answer.credit += size
        self._queue(answer)

    def forget(self, answer: LongAnswer) -> None:
        """The call has ended."""
        self._answers.discard(answer)
        self._turns.pop(answer, None)
        self._unsent.forget(answer)
        answer.close()

    def send(self, is_writable: Callable[[], bool]) -> None:
        """Sends slices in turn until nothing may be sent, or the connection takes no more."""
        while self._turns and is_writable():
            answer = next(iter(self._turns))
            del self._turns[answer]
            answer.send_slice()
            if not answer.sender.done:
                self._queue(answer)
                self._unsent.moved(answer)

    def _queue(self, answer: LongAnswer) -> None:
        if answer.may_send:
            self._turns.setdefault(answer)
