"""The commands of streams, for the model of Redis. Ids are given by whoever adds an entry, as the project does."""

from __future__ import annotations

import bisect
from collections.abc import Iterable

from tests.simulation.redis_data import Args, CommandError, Data, Reply, Stream, command


def _id_of(text: bytes, *, otherwise: int = 0) -> tuple[int, int]:
    if text == b"-":
        return (0, 0)
    if text == b"+":
        return (1 << 64, 0)
    milliseconds, _, sequence = text.partition(b"-")
    return int(milliseconds), int(sequence) if sequence else otherwise


def _text_of(entry_id: tuple[int, int]) -> bytes:
    return b"%d-%d" % entry_id


@command("XADD")
def _xadd(data: Data, args: Args) -> Reply:
    key, entry_id = args[0], _id_of(args[1])
    stream = data.make(key, Stream)
    if entry_id <= stream.last:
        raise CommandError("ERR The ID specified in XADD is equal or smaller than the target stream top item")
    stream.ids.append(entry_id)
    stream.entries.append(args[2:])
    stream.last = entry_id
    data.note(b"XADD", *args)
    return _text_of(entry_id)


def _places(stream: Stream, low: bytes, high: bytes) -> tuple[int, int]:
    """The places [first, end) of the entries between two ids, of which one with a `(` is excluded."""
    if low.startswith(b"("):
        first = bisect.bisect_right(stream.ids, _id_of(low[1:]))
    else:
        first = bisect.bisect_left(stream.ids, _id_of(low))
    if high.startswith(b"("):
        return first, bisect.bisect_left(stream.ids, _id_of(high[1:]))
    return first, bisect.bisect_right(stream.ids, _id_of(high, otherwise=1 << 64))


def _entries(stream: Stream, places: Iterable[int], args: Args) -> Reply:
    chosen = list(places)
    if args and args[0].upper() == b"COUNT":
        chosen = chosen[: int(args[1])]
    return [[_text_of(stream.ids[at]), list(stream.entries[at])] for at in chosen]


@command("XRANGE")
def _xrange(data: Data, args: Args) -> Reply:
    stream = data.find(args[0], Stream) or Stream()
    return _entries(stream, range(*_places(stream, args[1], args[2])), args[3:])


@command("XREVRANGE")
def _xrevrange(data: Data, args: Args) -> Reply:
    stream = data.find(args[0], Stream) or Stream()
    return _entries(stream, reversed(range(*_places(stream, args[2], args[1]))), args[3:])


@command("XLEN")
def _xlen(data: Data, args: Args) -> Reply:
    stream = data.find(args[0], Stream)
    return len(stream.ids) if stream is not None else 0


@command("XTRIM")
def _xtrim(data: Data, args: Args) -> Reply:
    if args[1].upper() != b"MINID" or len(args) != 3:
        raise CommandError("ERR the model knows XTRIM key MINID id alone")
    stream = data.find(args[0], Stream)
    if stream is None:
        return 0
    dropped = bisect.bisect_left(stream.ids, _id_of(args[2]))
    if dropped:
        del stream.ids[:dropped], stream.entries[:dropped]
        data.note(b"XTRIM", *args)
    return dropped


@command("XDEL")
def _xdel(data: Data, args: Args) -> Reply:
    stream = data.find(args[0], Stream)
    gone = 0
    for text in args[1:]:
        at = bisect.bisect_left(stream.ids, _id_of(text)) if stream is not None else 0
        if stream is not None and at < len(stream.ids) and stream.ids[at] == _id_of(text):
            del stream.ids[at], stream.entries[at]
            gone += 1
    if gone:
        data.note(b"XDEL", *args)
    return gone
