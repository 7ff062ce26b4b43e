"""The content of the model of Redis: keys, their values, and the commands that the project uses, as functions of them.

A command that changes something says what it did in terms that have the same effect whenever they are repeated: the
*effects*. The durability of the model is a list of these, as Redis' append-only file is.
"""

from __future__ import annotations

import fnmatch
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

Args = list[bytes]
Effect = tuple[bytes, ...]
Reply = Any
"""bytes, int, None, Status, or a list of these."""


class Status(bytes):
    """A reply that is a simple string."""


class CommandError(Exception):
    """A reply that is an error; the text begins with its kind."""


@dataclass
class Stream:
    """Entries by id, ascending, and the highest id that was ever added."""

    ids: list[tuple[int, int]] = field(default_factory=list)
    entries: list[list[bytes]] = field(default_factory=list)
    last: tuple[int, int] = (0, 0)


@dataclass
class SortedSet:
    scores: dict[bytes, float] = field(default_factory=dict)

    def ordered(self) -> list[tuple[float, bytes]]:
        return sorted((score, member) for member, score in self.scores.items())


UNKNOWN: Final = "the model has no such command yet"
WRONG_TYPE: Final = "WRONGTYPE Operation against a key holding the wrong kind of value"


class Data:
    """All keys. `now_ms` is the server's clock."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self.now_ms = now_ms
        self.values: dict[bytes, Any] = {}
        self.expiries_ms: dict[bytes, int] = {}
        self.effects: list[Effect] = []
        """Effects of the commands since somebody took them."""

    def call(self, args: Args) -> Reply:
        """Executes a command. Raises CommandError."""
        name = args[0].upper()
        command = COMMANDS.get(name)
        if command is None:
            raise CommandError(f"ERR {UNKNOWN}: {name.decode()}")
        return command(self, args[1:])

    def repeat(self, effects: Iterable[Effect]) -> None:
        for effect in effects:
            self.call(list(effect))
        self.effects.clear()

    def note(self, *effect: bytes | int) -> None:
        self.effects.append(tuple(part if isinstance(part, bytes) else b"%d" % part for part in effect))

    def find(self, key: bytes, kind: type[Any]) -> Any:
        """The value of a key, None when there is none."""
        expiry_ms = self.expiries_ms.get(key)
        if expiry_ms is not None and expiry_ms <= self.now_ms():
            del self.expiries_ms[key]
            self.values.pop(key, None)
        value = self.values.get(key)
        if value is not None and not isinstance(value, kind):
            raise CommandError(WRONG_TYPE)
        return value

    def make(self, key: bytes, kind: type[Any]) -> Any:
        """The value of a key, a new and empty one when there is none."""
        value = self.find(key, kind)
        if value is None:
            value = self.values[key] = kind()
        return value

    def drop(self, key: bytes) -> bool:
        found = self.find(key, object) is not None
        self.values.pop(key, None)
        self.expiries_ms.pop(key, None)
        return found

    def drop_if_empty(self, key: bytes, size: int) -> None:
        if not size:
            self.drop(key)


Command = Callable[[Data, Args], Reply]
COMMANDS: Final[dict[bytes, Command]] = {}


def command(name: str) -> Callable[[Command], Command]:
    def register(function: Command) -> Command:
        COMMANDS[name.upper().encode()] = function
        return function

    return register


def number(value: float) -> bytes:
    """A number as Redis writes it."""
    return b"%d" % value if value == int(value) and abs(value) < 1e17 else repr(float(value)).encode()


# ---- any key


@command("EXISTS")
def _exists(data: Data, keys: Args) -> Reply:
    return sum(data.find(key, object) is not None for key in keys)


@command("DEL")
def _del(data: Data, keys: Args) -> Reply:
    dropped = [key for key in keys if data.drop(key)]
    if dropped:
        data.note(b"DEL", *dropped)
    return len(dropped)


COMMANDS[b"UNLINK"] = _del


@command("PEXPIREAT")
def _pexpireat(data: Data, args: Args) -> Reply:
    key, at_ms = args
    if data.find(key, object) is None:
        return 0
    data.expiries_ms[key] = int(at_ms)
    data.note(b"PEXPIREAT", key, int(at_ms))
    return 1


@command("EXPIRE")
def _expire(data: Data, args: Args) -> Reply:
    return _pexpireat(data, [args[0], b"%d" % (data.now_ms() + 1000 * int(args[1]))])


@command("TYPE")
def _type(data: Data, args: Args) -> Reply:
    names = {bytes: b"string", dict: b"hash", set: b"set", SortedSet: b"zset", Stream: b"stream"}
    value = data.find(args[0], object)
    return Status(b"none" if value is None else names[type(value)])


@command("DUMP")
def _dump(data: Data, args: Args) -> Reply:
    value = data.find(args[0], object)
    return None if value is None else repr(value).encode()


@command("SCAN")
def _scan(data: Data, args: Args) -> Reply:
    options = options_of(args[1:])
    pattern = options.get(b"MATCH", b"*").decode("latin-1")
    keys = [key for key in list(data.values) if matches(key, pattern) and data.find(key, object) is not None]
    return [b"0", sorted(keys)]


def options_of(args: Args) -> dict[bytes, bytes]:
    return {args[at].upper(): args[at + 1] for at in range(0, len(args) - 1, 2)}


def matches(key: bytes, pattern: str) -> bool:
    """Whether a key matches; backslashes and brackets of a pattern mean what they do to fnmatch."""
    return fnmatch.fnmatchcase(key.decode("latin-1"), pattern.replace("\\", ""))


@command("TIME")
def _time(data: Data, args: Args) -> Reply:
    now_ms = data.now_ms()
    return [b"%d" % (now_ms // 1000), b"%d" % (now_ms % 1000 * 1000)]


# ---- strings


@command("GET")
def _get(data: Data, args: Args) -> Reply:
    return data.find(args[0], bytes)


@command("SET")
def _set(data: Data, args: Args) -> Reply:
    key, value, options = args[0], args[1], [option.upper() for option in args[2:]]
    if b"NX" in options and data.find(key, object) is not None:
        return None
    data.values[key] = bytes(value)
    data.expiries_ms.pop(key, None)
    data.note(b"SET", key, value)
    for unit, factor in ((b"EX", 1000), (b"PX", 1)):
        if unit in options:
            _pexpireat(data, [key, b"%d" % (data.now_ms() + factor * int(options[options.index(unit) + 1]))])
    return Status(b"OK")


@command("INCRBY")
def _incrby(data: Data, args: Args) -> Reply:
    total = int(data.find(args[0], bytes) or 0) + int(args[1])
    data.values[args[0]] = b"%d" % total
    data.note(b"INCRBY", *args)
    return total


@command("INCR")
def _incr(data: Data, args: Args) -> Reply:
    return _incrby(data, [args[0], b"1"])


# ---- lists


@command("RPUSH")
def _rpush(data: Data, args: Args) -> Reply:
    value = data.make(args[0], list)
    value.extend(args[1:])
    data.note(b"RPUSH", *args)
    return len(value)


@command("LRANGE")
def _lrange(data: Data, args: Args) -> Reply:
    value = data.find(args[0], list) or []
    start, stop = (at + len(value) if at < 0 else at for at in (int(args[1]), int(args[2])))
    return value[max(0, start) : stop + 1]


@command("LLEN")
def _llen(data: Data, args: Args) -> Reply:
    return len(data.find(args[0], list) or ())


# ---- hashes


@command("HSET")
def _hset(data: Data, args: Args) -> Reply:
    if len(args) < 3 or len(args) % 2 == 0:
        raise CommandError("ERR wrong number of arguments for 'hset' command")
    value = data.make(args[0], dict)
    before = len(value)
    value.update(zip(args[1::2], args[2::2], strict=True))
    data.note(b"HSET", *args)
    return len(value) - before


@command("HSETNX")
def _hsetnx(data: Data, args: Args) -> Reply:
    if args[1] in (data.find(args[0], dict) or {}):
        return 0
    return _hset(data, args)


@command("HINCRBY")
def _hincrby(data: Data, args: Args) -> Reply:
    value = data.make(args[0], dict)
    total = int(value.get(args[1], 0)) + int(args[2])
    value[args[1]] = b"%d" % total
    data.note(b"HINCRBY", *args)
    return total


@command("HDEL")
def _hdel(data: Data, args: Args) -> Reply:
    value = data.find(args[0], dict)
    gone = [name for name in args[1:] if value is not None and value.pop(name, None) is not None]
    if gone:
        data.note(b"HDEL", args[0], *gone)
        data.drop_if_empty(args[0], len(value))
    return len(gone)


@command("HGET")
def _hget(data: Data, args: Args) -> Reply:
    return (data.find(args[0], dict) or {}).get(args[1])


@command("HMGET")
def _hmget(data: Data, args: Args) -> Reply:
    value = data.find(args[0], dict) or {}
    return [value.get(name) for name in args[1:]]


@command("HGETALL")
def _hgetall(data: Data, args: Args) -> Reply:
    return [part for pair in (data.find(args[0], dict) or {}).items() for part in pair]


@command("HKEYS")
def _hkeys(data: Data, args: Args) -> Reply:
    return list(data.find(args[0], dict) or {})


@command("HVALS")
def _hvals(data: Data, args: Args) -> Reply:
    return list((data.find(args[0], dict) or {}).values())


@command("HLEN")
def _hlen(data: Data, args: Args) -> Reply:
    return len(data.find(args[0], dict) or {})


@command("HEXISTS")
def _hexists(data: Data, args: Args) -> Reply:
    return int(args[1] in (data.find(args[0], dict) or {}))


@command("HSCAN")
def _hscan(data: Data, args: Args) -> Reply:
    pattern = options_of(args[2:]).get(b"MATCH", b"*").decode("latin-1")
    found = (data.find(args[0], dict) or {}).items()
    return [b"0", [part for name, value in found if matches(name, pattern) for part in (name, value)]]


# ---- sets


@command("SADD")
def _sadd(data: Data, args: Args) -> Reply:
    value = data.make(args[0], set)
    before = len(value)
    value.update(args[1:])
    data.note(b"SADD", *args)
    return len(value) - before


@command("SREM")
def _srem(data: Data, args: Args) -> Reply:
    value = data.find(args[0], set) or set()
    gone = [member for member in args[1:] if member in value]
    value.difference_update(gone)
    if gone:
        data.note(b"SREM", args[0], *gone)
        data.drop_if_empty(args[0], len(value))
    return len(gone)


@command("SMOVE")
def _smove(data: Data, args: Args) -> Reply:
    source, target, member = args
    if not _srem(data, [source, member]):
        return 0
    _sadd(data, [target, member])
    return 1


@command("SMEMBERS")
def _smembers(data: Data, args: Args) -> Reply:
    return sorted(data.find(args[0], set) or ())


@command("SISMEMBER")
def _sismember(data: Data, args: Args) -> Reply:
    return int(args[1] in (data.find(args[0], set) or ()))


@command("SMISMEMBER")
def _smismember(data: Data, args: Args) -> Reply:
    members = data.find(args[0], set) or ()
    return [int(each in members) for each in args[1:]]


@command("SCARD")
def _scard(data: Data, args: Args) -> Reply:
    return len(data.find(args[0], set) or ())


@command("SRANDMEMBER")
def _srandmember(data: Data, args: Args) -> Reply:
    members = sorted(data.find(args[0], set) or ())
    return random.Random(data.now_ms()).sample(members, min(len(members), int(args[1])))
