"""Calls to one address that wait to be sent together.

```text
calls    1 2 3   4 5 6   7 8 9
frames  [1 2 3] [4 5 6] [7 8 9]
answers                1 2 3   4 5 6   ...
```

A call that finds fewer than two calls per frame worth while (`shared.rpc.batching`) is sent at once; others are held
back until the frame is full, or for at most `HOLD_S`, so that a slow call holds up none that come after it. A large
call has a frame of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from shared.rpc.batching import BatchSize
from shared.rpc.client_call import ClientCall, FrameInFlight
from shared.rpc.frames import FRAME_CALLS_MAX, OWN_FRAME_BYTES

HOLD_S: Final = 0.0015
"""Longest time that a call is held back to be sent together with others, in seconds."""


class FrameQueue:
    """Gathers calls into frames, and hands each to `send` when it is due."""

    def __init__(self, loop: asyncio.AbstractEventLoop, send: Callable[[Sequence[ClientCall]], None]) -> None:
        self._loop = loop
        self._send = send
        self._held: list[ClientCall] = []
        self._size = BatchSize()
        self._timer: asyncio.Handle | None = None
        self._sends_soon = False

    def add(self, call: ClientCall) -> None:
        """A call to be sent."""
        if len(call.payload) > OWN_FRAME_BYTES:
            self._send_frame([call])
            return
        self._size.call_came(self._loop.time())
        self._held.append(call)
        if len(self._held) >= self._size.calls:
            self._send_soon()
        elif self._timer is None:
            self._timer = self._loop.call_later(HOLD_S, self._send_held)

    def note_answer(self, frame: FrameInFlight) -> None:
        """The first answer to a frame has come, or the first of its calls has ended without one."""
        frame.is_answered = True
        self._size.frame_answered(self._loop.time() - frame.sent_s)

    def _send_soon(self) -> None:
        """Sends what is held in the next turn of the loop, with the calls that come in this one."""
        if self._sends_soon:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._sends_soon = True
        self._timer = self._loop.call_soon(self._send_held)

    def _send_held(self) -> None:
        self._timer, self._sends_soon = None, False
        held = [call for call in self._held if not call.answer.done()]
        self._held = held[FRAME_CALLS_MAX:]
        if held:
            self._send_frame(held[:FRAME_CALLS_MAX])
        if self._held:
            self._send_soon()

    def _send_frame(self, calls: Sequence[ClientCall]) -> None:
        frame = FrameInFlight(self._loop.time())
        for call in calls:
            call.frame = frame
        self._send(calls)
