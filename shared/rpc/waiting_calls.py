"""The calls of one connection that its server has read and not taken up, because it works on so many already.

They are read all the same. Credit and cancellation come behind them on the same connection; and the system gives up a
connection whose window stays closed for some seconds (`shared.rpc.frames.tune`), with everything that is under way on
it.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from shared.rpc.server_call import Call

CALL_BYTES: Final = 1024
"""Approximate memory of a call beside its payload, in bytes."""


class WaitingCalls:
    """In the order in which they came. `bytes` is about what they take in memory."""

    def __init__(self) -> None:
        self.bytes = 0
        self._methods: dict[Call, str] = {}

    def __len__(self) -> int:
        return len(self._methods)

    def add(self, call: Call, method: str) -> None:
        """The call waits from now on."""
        self._methods[call] = method
        self.bytes += len(call.payload) + CALL_BYTES

    def discard(self, call: Call) -> None:
        """The call has ended; it may not have waited at all."""
        if self._methods.pop(call, None) is not None:
            self.bytes -= len(call.payload) + CALL_BYTES

    def take(self, count: int) -> dict[str, list[Call]]:
        """The calls that have waited longest, up to `count` of them, by method. They wait no longer."""
        together: dict[str, list[Call]] = {}
        for call, method in list(islice(self._methods.items(), count)):
            together.setdefault(method, []).append(call)
            self.discard(call)
        return together
