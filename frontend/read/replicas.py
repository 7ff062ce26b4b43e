"""Load balancing among the workers that may serve a shard. Pure.

The worker ranked first has the warmest cache, and calls to one worker travel together in frames: so it is asked as long
as it is about as busy as the others. A shard that is read a lot is read from several workers, evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

HEAD_START: Final = 6
"""How many more calls in flight a worker may have than one ranked behind it, and still be preferred: those of a frame
or two."""


def call_order(
    ranked: Sequence[str], replicas: int, calls: Callable[[str], int], draw: Callable[[int], int]
) -> list[str]:
    """The workers `ranked` (by id, best first) in the order in which to ask them. `calls` gives the calls in flight to
    a worker, `draw(n)` a random number below n.

    Of the first `replicas` two are drawn, and the less loaded of them comes first ("power of two choices"): with many
    frontends, each of which knows its own calls alone, always asking the least loaded worker would send all of them to
    the same one. The other workers follow in rank.
    """
    count = min(replicas, len(ranked))
    if count < 2:
        return list(ranked)
    first = draw(count)
    second = (first + 1 + draw(count - 1)) % count
    better, other = sorted((first, second))
    chosen = other if calls(ranked[better]) - calls(ranked[other]) >= HEAD_START else better
    return [ranked[chosen], *ranked[:chosen], *ranked[chosen + 1 :]]
