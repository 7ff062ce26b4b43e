"""Names of what Redis holds of a log, for people and for the registry of damage. Objects are named by their keys; these
names look alike and are none.
"""

from __future__ import annotations

import re
from typing import Final

_STREAM: Final = re.compile(r"[^/]+/\d+/log")
_STATE: Final = re.compile(r"[^/]+/state")


def entry_name(collection_id: str, shard: int, entry_id: str) -> str:
    """The name of an entry of a shard's stream."""
    return f"{collection_id}/{shard}/log/{entry_id}"


def stream_name(collection_id: str, shard: int) -> str:
    """The name of a shard's stream as a whole, for what is wrong with none of its entries alone."""
    return f"{collection_id}/{shard}/log"


def state_name(collection_id: str) -> str:
    """The name of a collection's state."""
    return f"{collection_id}/state"


def is_stream_name(name: str) -> bool:
    """Whether `stream_name` gave this name."""
    return _STREAM.fullmatch(name) is not None


def is_state_name(name: str) -> bool:
    """Whether `state_name` gave this name."""
    return _STATE.fullmatch(name) is not None
