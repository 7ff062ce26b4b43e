"""A long answer, as its caller reads it: chunk by chunk, with no more of it in memory than the reader keeps up with.

```text
granted to the server, on its way  │  arrived  │  in the reader's hands
└──────── as much as the budget's window allows, and all answers within the budget ────────┘
```

Whenever the reader has consumed a chunk, its bytes are granted to the server anew, as far as the budget
(`shared.rpc.answer_budget`) allows. So a server sends an answer as fast as it is read, and holds the rest back or has
not made it yet. A server of the version before sends everything at once; then all that comes is counted.

An answer may be large, so nothing here waits for the garbage collector: no cycle is left when it has ended.
"""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from typing import Final, Protocol

from shared.rpc.answer_budget import AnswerBudget

WINDOW_PARTS: Final = 4
"""When this part of its window is consumed, a reader grants it anew: each grant costs a frame."""


class ChunkSource(Protocol):
    """The call whose answer is read."""

    def grant(self, size: int) -> None:
        """Lets the server send so many bytes more."""

    def read_no_more(self) -> None:
        """Ends the call: nobody reads on, or nothing is left to be read."""


class ChunkStream:
    """Iterated over once, it gives the chunks in their order. Whoever stops earlier has to `close` it.

    A chunk counts as consumed when the next one is asked for. Each is a view of what arrived; iterating raises what the
    call raised, behind the chunks that came before it: Unavailable when the connection was lost, DeadlineExceeded when
    nothing came for the call's timeout although it was granted.
    """

    def __init__(self, source: ChunkSource, budget: AnswerBudget, window: int) -> None:
        """`window`: bytes that the server may send at first; 0 when it does not care for credit."""
        self._source: ChunkSource | None = source
        self._budget = budget
        self._is_paced = window > 0
        self._granted = window
        self._held = 0
        self._in_hands = 0
        self._arrived: deque[memoryview] = deque()
        self._changed: asyncio.Future[None] | None = None
        self._error: BaseException | None = None
        budget.open(window)

    def __aiter__(self) -> ChunkStream:
        return self

    async def __anext__(self) -> memoryview:
        self._consumed()
        while not self._arrived:
            if self._error is not None:
                raise copy.copy(self._error)  # what is raised refers to this frame, so keeping it would make a cycle
            if self._source is None:
                raise StopAsyncIteration
            self._changed = asyncio.get_running_loop().create_future()
            await self._changed
        chunk = self._arrived.popleft()
        self._in_hands = len(chunk)
        return chunk

    def close(self) -> None:
        """Nobody wants what has not been read. The server is told to stop."""
        self._arrived.clear()
        self._end(None)
        self._give_back_held(self._held)
        self._in_hands = 0

    # ---- what the call tells

    @property
    def expects_more(self) -> bool:
        """Whether the server should be sending: it has credit, or needs none."""
        return self._granted > 0 or not self._is_paced

    def add(self, chunk: memoryview) -> bool:
        """The next chunk has arrived. False when that is more than was granted, which no server may send."""
        if self._is_paced:
            self._granted -= len(chunk)
        else:
            self._budget.count(len(chunk))
        self._held += len(chunk)
        if len(chunk):
            self._arrived.append(chunk)
            self._wake()
        return self._granted >= 0

    def end(self, error: BaseException | None = None) -> None:
        """No chunk follows: that was all of them, or the call has failed."""
        self._end(error)
        self._wake()

    # ---- credit

    def resume(self) -> None:
        """The budget has room again."""
        self._grant()

    def _consumed(self) -> None:
        consumed, self._in_hands = self._in_hands, 0
        if consumed:
            self._give_back_held(consumed)
            self._grant()

    def _grant(self) -> None:
        """Grants what the window has room for, unless that is little."""
        window = self._budget.window
        room = window - self._held - self._granted
        if self._source is None or not self._is_paced or room < window // WINDOW_PARTS:
            return
        size = self._budget.take(self, room)
        if size:
            self._granted += size
            self._source.grant(size)

    def _give_back_held(self, size: int) -> None:
        self._held -= size
        self._budget.give_back(size)

    def _end(self, error: BaseException | None) -> None:
        source, self._source = self._source, None
        if source is None:
            return
        self._error = error
        granted, self._granted = max(0, self._granted), 0
        self._budget.close(self, granted)
        source.read_no_more()

    def _wake(self) -> None:
        changed, self._changed = self._changed, None
        if changed is not None and not changed.done():
            changed.set_result(None)


Answer = memoryview | ChunkStream
"""An answer as a whole when it is no longer than the first window, else its chunks."""


def discard(call: asyncio.Future[Answer] | asyncio.Future[memoryview]) -> None:
    """Gives a call up: nobody wants its answer, which may have come already."""
    if not call.cancel() and not call.cancelled() and call.exception() is None:
        answer = call.result()
        if isinstance(answer, ChunkStream):
            answer.close()
