"""The commands of sorted sets, for the model of Redis."""

from __future__ import annotations

from tests.simulation.redis_data import Args, Data, Reply, SortedSet, command, matches, number, options_of


def _bound(text: bytes) -> tuple[float, bool]:
    """A bound of scores, and whether it is exclusive."""
    exclusive = text.startswith(b"(")
    return float(text[1:] if exclusive else text), exclusive


@command("ZADD")
def _zadd(data: Data, args: Args) -> Reply:
    only_new = args[1].upper() == b"NX"
    scores = args[2:] if only_new else args[1:]
    value = data.make(args[0], SortedSet).scores
    before = len(value)
    for score, member in zip(scores[::2], scores[1::2], strict=True):
        if not (only_new and member in value):
            value[member] = float(score)
            data.note(b"ZADD", args[0], score, member)
    return len(value) - before


@command("ZREM")
def _zrem(data: Data, args: Args) -> Reply:
    value = data.find(args[0], SortedSet)
    gone = [member for member in args[1:] if value is not None and value.scores.pop(member, None) is not None]
    if gone:
        data.note(b"ZREM", args[0], *gone)
        data.drop_if_empty(args[0], len(value.scores))
    return len(gone)


def _pop(data: Data, args: Args, *, highest: bool) -> Reply:
    value = data.find(args[0], SortedSet)
    ordered = value.ordered() if value is not None else []
    taken = (ordered[::-1] if highest else ordered)[: int(args[1]) if len(args) > 1 else 1]
    if taken:
        _zrem(data, [args[0], *(member for _, member in taken)])
    return [part for score, member in taken for part in (member, number(score))]


@command("ZPOPMIN")
def _zpopmin(data: Data, args: Args) -> Reply:
    return _pop(data, args, highest=False)


@command("ZPOPMAX")
def _zpopmax(data: Data, args: Args) -> Reply:
    return _pop(data, args, highest=True)


@command("ZCARD")
def _zcard(data: Data, args: Args) -> Reply:
    value = data.find(args[0], SortedSet)
    return len(value.scores) if value is not None else 0


@command("ZSCORE")
def _zscore(data: Data, args: Args) -> Reply:
    value = data.find(args[0], SortedSet)
    score = value.scores.get(args[1]) if value is not None else None
    return None if score is None else number(score)


@command("ZMSCORE")
def _zmscore(data: Data, args: Args) -> Reply:
    return [_zscore(data, [args[0], member]) for member in args[1:]]


def _range(data: Data, args: Args, *, reverse: bool) -> Reply:
    value = data.find(args[0], SortedSet)
    ordered = value.ordered() if value is not None else []
    ordered = ordered[::-1] if reverse else ordered
    start, stop = int(args[1]), int(args[2])
    start, stop = (at + len(ordered) if at < 0 else at for at in (start, stop))
    with_scores = len(args) > 3 and args[3].upper() == b"WITHSCORES"
    chosen = ordered[max(0, start) : stop + 1]
    return [part for score, member in chosen for part in ((member, number(score)) if with_scores else (member,))]


@command("ZRANGE")
def _zrange(data: Data, args: Args) -> Reply:
    return _range(data, args, reverse=False)


@command("ZREVRANGE")
def _zrevrange(data: Data, args: Args) -> Reply:
    return _range(data, args, reverse=True)


def _between(data: Data, key: bytes, lowest: bytes, highest: bytes) -> list[bytes]:
    """The members with scores between two bounds, ascending."""
    value = data.find(key, SortedSet)
    (low, low_excluded), (high, high_excluded) = _bound(lowest), _bound(highest)
    return [
        member
        for score, member in (value.ordered() if value is not None else [])
        if (low < score or (low == score and not low_excluded))
        and (score < high or (score == high and not high_excluded))
    ]


@command("ZRANGEBYSCORE")
def _zrangebyscore(data: Data, args: Args) -> Reply:
    found = _between(data, *args[:3])
    if len(args) > 3 and args[3].upper() == b"LIMIT":
        found = found[int(args[4]) :][: int(args[5])]
    return found


@command("ZREMRANGEBYSCORE")
def _zremrangebyscore(data: Data, args: Args) -> Reply:
    found = _between(data, *args)
    return _zrem(data, [args[0], *found]) if found else 0


@command("ZSCAN")
def _zscan(data: Data, args: Args) -> Reply:
    pattern = options_of(args[2:]).get(b"MATCH", b"*").decode("latin-1")
    value = data.find(args[0], SortedSet)
    found = value.ordered() if value is not None else []
    return [b"0", [part for score, name in found if matches(name, pattern) for part in (name, number(score))]]
