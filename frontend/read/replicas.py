"""Which of the workers that may serve a shard is asked. Pure.

The best in rank has the warmest cache, and calls that go to one worker travel together: so it is asked as long as it is
about as busy as the others. A shard that is read a lot is read from several workers, evenly.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

HEAD_START: Final = 6
"""How many calls in flight more a better ranked worker may have and is preferred still: those of a batch or two."""


def in_turn(ranked: Sequence[str], replicas: int, calls: Callable[[str], int], draw: Callable[[int], int]) -> list[str]:
    """The order in which to ask `ranked`, given the calls in flight to each. `draw(n)` is a random number below n.

    Of the first `replicas` two are drawn, and the less loaded goes first: with many frontends, each of which knows its
    own calls alone, always asking the least loaded would send them all to the same one. The others follow in rank.
    """
    count = min(replicas, len(ranked))
    if count < 2:
        return list(ranked)
    first = draw(count)
    second = (first + 1 + draw(count - 1)) % count
    better, other = sorted((first, second))
    chosen = other if calls(ranked[better]) - calls(ranked[other]) >= HEAD_START else better
    return [ranked[chosen], *ranked[:chosen], *ranked[chosen + 1 :]]
