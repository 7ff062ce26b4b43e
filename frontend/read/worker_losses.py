"""A request that a worker died of must not be given to one worker after the other. Pure.

When the connection to a worker breaks while it works on a call, nobody can tell whether the worker died of that call,
of another one, or was stopped. So:

  * a costly call (`frontend.read.hedging.costly`) is not made again: it is the kind that takes a worker's memory;
  * any other one is made once more, and not a third time.

A call whose time is over is not made again either when it is costly: another worker would take as long.

The request is answered with NotRepeated then, which says so. Workers that refuse a connection, that drain, or that
fail before the call was sent have not worked on it, and are gone past as before.
"""

from __future__ import annotations

from typing import Final

from frontend.read.hedging import costly
from shared.errors import ConnectionLost, DeadlineExceeded, NotRepeated, PolychromeError
from shared.rpc.query_worker_methods import ReadRequest

LOSSES_MAX: Final = 1
"""Workers that may be lost over a call before it is given up."""


class WorkerLosses:
    """The workers that were lost while they worked on one call of `request`."""

    def __init__(self, request: ReadRequest) -> None:
        self._request = request
        self._count = 0
        self.is_over = False
        """Whether the time of a costly call is over: it is not to be made again."""

    def note(self, error: PolychromeError) -> None:
        """A worker has failed with `error`. Raises NotRepeated or DeadlineExceeded when no other is to be asked."""
        if isinstance(error, DeadlineExceeded) and costly(self._request):
            self.is_over = True
            raise error
        if not isinstance(error, ConnectionLost):
            return
        self._count += 1
        if self._count > LOSSES_MAX or costly(self._request):
            raise NotRepeated(
                "A query worker was lost while it worked on this request, which is not given to another one: ask for "
                "less, or again later"
            ) from error
