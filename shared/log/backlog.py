"""The refusal of an append for which the collection's backlog has no space."""

from __future__ import annotations

from shared.errors import Backoff


class BacklogFull(Backoff):
    """The append would have taken the collection's backlog over its limit, so nothing was appended.

    `ops_left` and `bytes_left` (payload bytes) are what would still have been taken at that moment: an append that
    stays within both is accepted unless others are faster. Other kinds of Backoff (a server that is out of memory)
    hold for every append, however small.
    """

    def __init__(self, ops_left: int, bytes_left: int) -> None:
        super().__init__("The collection's log is full; its compaction has to catch up first")
        self.ops_left = ops_left
        self.bytes_left = bytes_left
