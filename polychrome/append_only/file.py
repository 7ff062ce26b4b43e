r"""Reading an append-only file of Redis that may be damaged: which of its bytes are commands, and which are not.

```text
*3\r\n                 a command of 3 arguments
$3\r\nSET\r\n          an argument: its length, its bytes
$1\r\na\r\n
$1\r\nb\r\n
```

What a script writes stands between the commands MULTI and EXEC; it took effect as a whole, and is a *unit* here. A
command outside of them is a unit by itself.

1. Units are read one after the other. Where the bytes are no command, or none that the server knows, there is damage.
2. After damage, reading goes on at the next bytes that are a command on one of the cluster's own keys. (A document in
   the log may look like a command. It does not look like one on our keys.)
3. The unit that is damaged is lost as a whole: everything from its MULTI on; and when an EXEC comes before the next
   MULTI, everything up to that, for its MULTI was among the damaged bytes.

A file that ends in the middle of a unit is not damaged: the process was killed while it wrote, and had not
acknowledged it. Memory is bounded: bytes are read through a window, and nothing is kept but where damage is.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final

WINDOW_BYTES: Final = 1024 * 1024
OVERLAP_BYTES: Final = 512
HEADER_BYTES_MAX: Final = 16
ARGUMENTS_MAX: Final = 1024 * 1024
NAME_BYTES_MAX: Final = 32
KEY_BYTES_MAX: Final = 64
TORN: Final = "the file ends within what was being written"

COMMANDS: Final = frozenset(
    b"APPEND BITFIELD BITOP BLMOVE BLMPOP BLPOP BRPOP BRPOPLPUSH BZMPOP BZPOPMAX BZPOPMIN CLUSTER COPY DECR DECRBY "
    b"DEL DELIFEQ EXEC EXPIRE EXPIREAT FLUSHALL FLUSHDB FUNCTION GEOADD GEORADIUS GEORADIUSBYMEMBER GEOSEARCHSTORE "
    b"GETDEL GETEX GETSET HDEL HEXPIRE HEXPIREAT HGETDEL HGETEX HINCRBY HINCRBYFLOAT HMSET HPERSIST HPEXPIRE "
    b"HPEXPIREAT HSET HSETEX HSETNX INCR INCRBY INCRBYFLOAT LINSERT LMOVE LMPOP LPOP LPUSH LPUSHX LREM LSET LTRIM "
    b"MIGRATE MOVE MSET MSETEX MSETNX MULTI PERSIST PEXPIRE PEXPIREAT PFADD PFDEBUG PFMERGE PSETEX RENAME RENAMENX "
    b"RESTORE RESTORE-ASKING RPOP RPOPLPUSH RPUSH RPUSHX SADD SDIFFSTORE SELECT SET SETBIT SETEX SETNX SETRANGE "
    b"SINTERSTORE SMOVE SORT SPOP SREM SUNIONSTORE SWAPDB UNLINK XACK XADD XAUTOCLAIM XCLAIM XDEL XGROUP XREADGROUP "
    b"XSETID XTRIM ZADD ZDIFFSTORE ZINCRBY ZINTERSTORE ZMPOP ZPOPMAX ZPOPMIN ZRANGESTORE ZREM ZREMRANGEBYLEX "
    b"ZREMRANGEBYRANK ZREMRANGEBYSCORE ZUNIONSTORE".split()
)
"""Commands that change keys, by name, as they stand in the file: all that the server has, since an operator may have
given any of them (FLUSHALL). Of a command with subcommands, its own name.
"""

_COMMAND: Final = re.compile(rb"\*[1-9][0-9]{0,6}\r\n\$[1-9][0-9]?\r\n([A-Za-z]+)\r\n")


@dataclass(frozen=True, slots=True)
class LostBytes:
    """Bytes [start, end) of a file that are lost, and why. `found` is where the first bad byte was noticed. A `torn`
    end is what was being written when the process was killed.
    """

    start: int
    end: int
    found: int
    reason: str
    torn: bool = False


@dataclass(frozen=True, slots=True)
class Command:
    """A command at the bytes up to `end`: its name in capitals, and its first argument's first bytes."""

    name: bytes
    key: bytes
    end: int


class BadBytes(Exception):
    """The bytes at `offset` are no command; `reason` says why. `torn`: because the file ends there."""

    def __init__(self, offset: int, reason: str, *, torn: bool = False) -> None:
        super().__init__(reason)
        self.offset = offset
        self.reason = reason
        self.torn = torn


class Window:
    """The bytes of a file, read through a window of WINDOW_BYTES."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.size = file.seek(0, 2)
        self._start = 0
        self._bytes = b""

    def read(self, offset: int, count: int) -> bytes:
        """The bytes [offset, offset + count), fewer at the end of the file; `count` is at most WINDOW_BYTES."""
        begin = offset - self._start
        if begin < 0 or begin + count > len(self._bytes):
            self._file.seek(offset)
            self._start, self._bytes = offset, self._file.read(WINDOW_BYTES)
            begin = 0
        return self._bytes[begin : begin + count]

    def search(self, pattern: re.Pattern[bytes], start: int, end: int) -> Iterator[tuple[int, re.Match[bytes]]]:
        """Matches of a pattern for at most OVERLAP_BYTES within [start, end), in order, each with its offset."""
        at = start
        while at < end:
            block = self.read(at, min(WINDOW_BYTES, end - at))
            last = at + len(block) >= end or not block
            limit = len(block) if last else len(block) - OVERLAP_BYTES
            for match in pattern.finditer(block):
                if match.start() < limit:
                    yield at + match.start(), match
            if last:
                return
            at += limit


def command_at(window: Window, offset: int) -> Command:
    """The command at this offset. Raises BadBytes."""
    count, at = _number(window, offset, b"*")
    if not 0 < count <= ARGUMENTS_MAX:
        raise BadBytes(offset, f"a command of {count} arguments")
    name = key = b""
    for index in range(count):
        length, begin = _number(window, at, b"$")
        at = begin + length + 2
        if at > window.size:
            raise BadBytes(begin, TORN, torn=True)
        if window.read(at - 2, 2) != b"\r\n":
            raise BadBytes(at - 2, "an argument is longer or shorter than it says")
        if index == 0:
            name = _name(window, begin, length)
        elif index == 1:
            key = window.read(begin, min(length, KEY_BYTES_MAX))
    return Command(name, key, at)


def _name(window: Window, begin: int, length: int) -> bytes:
    name = window.read(begin, min(length, NAME_BYTES_MAX)).upper()
    if name not in COMMANDS:
        raise BadBytes(begin, f"no command has the name {name.decode(errors='replace')!r}")
    return name


def _number(window: Window, offset: int, sign: bytes) -> tuple[int, int]:
    """The number of the header line at this offset, and where the line ends. Raises BadBytes."""
    head = window.read(offset, HEADER_BYTES_MAX)
    line, end, _ = head.partition(b"\r\n")
    if end and line[:1] == sign and line[1:].isdigit():
        return int(line[1:]), offset + len(line) + 2
    torn = offset + len(head) >= window.size and re.fullmatch(re.escape(sign) + rb"\d*\r?", head) is not None
    reason = TORN if torn or not head else f"{line.decode(errors='replace')!r} stands where a length should"
    raise BadBytes(offset, reason, torn=torn or not head)


def scan(window: Window, prefix: bytes) -> list[LostBytes]:
    """The damage in a file of commands, in order, a torn end last. `prefix` is how the cluster's keys begin."""
    return _Scan(window, prefix).run()


class _Scan:
    """The state of reading a file: where the next unit begins, and what is not decided yet."""

    def __init__(self, window: Window, prefix: bytes) -> None:
        self._window = window
        self._prefix = prefix
        self._found: list[LostBytes] = []
        self._at = 0
        self._before = 0
        """Offset at which the unit or command before `_at` begins."""
        self._unit: int | None = None
        """Offset of the MULTI of the unit that is being read; None outside of units."""
        self._pending: LostBytes | None = None
        """The last damage, while it is not known whether what follows belongs to the damaged unit."""
        self._inside = False
        """Whether that damage was within a unit: then what follows, up to its EXEC, does."""

    def run(self) -> list[LostBytes]:
        while self._at < self._window.size:
            try:
                command = command_at(self._window, self._at)
            except BadBytes as bad:
                following = self._next_command(max(bad.offset, self._at + 1))
                if following is None and bad.torn:
                    self._end(torn=True)
                    return self._found
                self._lose(bad, self._window.size if following is None else following)
            else:
                self._read(command)
        self._end(torn=False)
        return self._found

    def _read(self, command: Command) -> None:
        if command.name == b"MULTI":
            self._settle()
            if self._unit is not None:
                self._found.append(LostBytes(self._unit, self._at, self._at, "a transaction has no end"))
            self._unit = self._at
        elif command.name == b"EXEC":
            if self._pending is not None:
                self._settle(command.end)
            elif self._unit is None:
                self._found.append(LostBytes(self._at, command.end, self._at, "a transaction has no beginning"))
            self._before, self._unit = self._at if self._unit is None else self._unit, None
        elif self._unit is None:
            self._before = self._at
        self._at = command.end

    def _lose(self, bad: BadBytes, end: int) -> None:
        """Goes on at `end`. What was read since a pending damage may belong to the same unit, and is lost with it."""
        pending, start = self._pending, self._at if self._unit is None else self._unit
        if self._unit is None and self._window.read(self._at, 1) == b"$":  # the command before has more arguments
            start = self._before
        self._inside = self._unit is not None or (pending is not None and self._inside)
        if pending is None:
            self._pending = LostBytes(start, end, bad.offset, bad.reason)
        else:
            self._pending = LostBytes(pending.start, end, pending.found, pending.reason)
        self._unit = None
        self._at = end

    def _settle(self, end: int | None = None) -> None:
        """The pending damage, if there is one, ends where it does, or at `end`."""
        pending, self._pending = self._pending, None
        if pending is not None:
            self._found.append(LostBytes(pending.start, end or pending.end, pending.found, pending.reason))

    def _end(self, *, torn: bool) -> None:
        if self._pending is not None:
            self._settle(self._window.size if torn or self._inside else None)
        elif torn or self._unit is not None:
            begin = self._at if self._unit is None else self._unit
            self._found.append(LostBytes(begin, self._window.size, self._at, TORN, torn=True))

    def _next_command(self, start: int) -> int | None:
        """Offset of the next command on a key of the cluster, or of a MULTI or EXEC before one; None without any."""
        for offset, match in self._window.search(_COMMAND, start, self._window.size):
            if match[1].upper() in COMMANDS and self._is_ours(offset):
                return offset
        return None

    def _is_ours(self, offset: int) -> bool:
        for _ in range(4):  # an EXEC, a MULTI and, in the beginning of a file, a SELECT
            try:
                command = command_at(self._window, offset)
            except BadBytes:
                return False
            if command.name not in (b"MULTI", b"SELECT", b"EXEC"):
                return command.key.startswith(self._prefix)
            offset = command.end
        return False
