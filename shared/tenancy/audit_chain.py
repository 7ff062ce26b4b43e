"""The parts of an audit log: lines of JSON that a chain of hashes holds together. Pure.

```text
audit/<day>/<chain>-<number>.jsonl
  {"n":0,"prev":"<hash of the last line of part number-1>","kind":"begin","format":1,"chain":..,"day":..,"number":..}
  {"n":1,"prev":"<hash of line 0>","kind":"event",...}
  {"n":2,"prev":"<hash of line 1>","kind":"gap",...}
  {"n":3,"prev":"<hash of line 2>","kind":"end","entries":2,"closed":false}
```

A chain is a life of a process. A line's hash is the SHA-256 of its bytes without the line end; before the very first
line it is that of nothing. So the last hash of a part stands for all that was written before it, and a part by itself
shows whether any of its lines was changed, removed, added or moved: the last line alone is held by the part that
follows, and by the heads (`audit_heads`). `closed` says that the process has stopped, and nothing follows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Final, NamedTuple

import msgspec

from shared.errors import Corrupt
from shared.objects.keys import AuditPart
from shared.tenancy.audit import Count, Entry, Event, Gap

FORMAT: Final = 1
NOTHING: Final = hashlib.sha256(b"").hexdigest()
"""The hash before the first line of a chain."""
PART_BYTES: Final = 1024 * 1024
"""Length from which on a part takes no more entries."""
PART_BYTES_MAX: Final = 8 * 1024 * 1024
"""Length of a part that is read at most."""
FLAWS_MAX: Final = 20
"""Flaws of one part that are named."""

_LINE: Final = re.compile(rb'\{"n":(0|[1-9]\d{0,9}),"prev":"([0-9a-f]{64})",(.*)\}', re.DOTALL)

Digest = Annotated[str, msgspec.Meta(pattern=r"\A[0-9a-f]{64}\Z")]


class PartBegin(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="begin"):
    """The first line of a part: where the part stands."""

    format: int
    chain: str
    day: str
    number: Count

    @property
    def place(self) -> AuditPart:
        """The place that the part was written to."""
        return AuditPart(self.day, self.chain, self.number)


class PartEnd(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="kind", tag="end"):
    """The last line of a part. `closed`: the process has stopped."""

    entries: Count
    closed: bool


Line = PartBegin | Event | Gap | PartEnd

_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Line)


class Sealed(NamedTuple):
    """A part as it is written: its place, its bytes, the hash of its last line, and how many of the entries are in
    it.
    """

    place: AuditPart
    data: bytes
    sha256: str
    entries: int


def seal(place: AuditPart, prev: str, entries: Sequence[Entry], *, closed: bool = False) -> Sealed:
    """The part at this place behind the hash `prev`, with as many of the entries as it takes; `closed` counts when
    those are all of them.
    """
    writer = _Writer(prev)
    writer.add(PartBegin(format=FORMAT, chain=place.chain, day=place.day, number=place.number))
    taken = 0
    for entry in entries:
        if writer.bytes >= PART_BYTES:
            break
        writer.add(entry)
        taken += 1
    writer.add(PartEnd(entries=taken, closed=closed and taken == len(entries)))
    return Sealed(place, b"".join(writer.lines), writer.prev, taken)


class _Writer:
    """The lines of a part while it is made; `prev` is the hash of the newest one."""

    def __init__(self, prev: str) -> None:
        self.prev = prev
        self.lines: list[bytes] = []
        self.bytes = 0

    def add(self, content: Line) -> None:
        head = f'{{"n":{len(self.lines)},"prev":"{self.prev}",'.encode()
        line = head + _ENCODER.encode(content)[1:]
        self.prev = hashlib.sha256(line).hexdigest()
        self.lines.append(line + b"\n")
        self.bytes += len(line) + 1


@dataclass(slots=True)
class CheckedPart:
    """A part that was read. `prev` is the hash that it follows, `sha256` that of its last line; `flaws` says what is
    wrong with its lines, `entries` has those that can be read. `begin` and `end` are None where they cannot be.
    """

    begin: PartBegin | None = None
    end: PartEnd | None = None
    prev: str = ""
    sha256: str = ""
    entries: list[Entry] = field(default_factory=list)
    flaws: list[str] = field(default_factory=list)

    @property
    def closed(self) -> bool:
        """Whether the process says that nothing follows."""
        return self.end is not None and self.end.closed


class _Read(NamedTuple):
    number: int
    prev: str
    content: Line


def check_part(place: AuditPart, data: bytes) -> CheckedPart:
    """Reads the part that was found at this place, and finds what is wrong with it."""
    part = CheckedPart()
    if len(data) > PART_BYTES_MAX:
        part.flaws.append("it is longer than a part can be")
        return part
    lines = data.split(b"\n")
    if lines.pop():
        part.flaws.append("its last line is cut off")
    check = _LineCheck(part)
    for line in lines:
        check.line(line)
        if len(part.flaws) >= FLAWS_MAX:
            part.flaws.append("and more")
            break
    part.sha256 = check.sha256
    if part.begin is None:
        part.flaws.append("its first line is missing")
    elif part.begin.place != place:
        part.flaws.append(f"it is the part {part.begin.place.key}, and not the one whose place it has")
    if part.end is None:
        part.flaws.append("its last line is missing")
    elif not part.flaws and part.end.entries != len(part.entries):
        part.flaws.append(f"it has {len(part.entries)} entries, and says that it has {part.end.entries}")
    return part


class _LineCheck:
    """Goes over the lines of a part. Each flaw is named once: where numbers are broken, hashes are as well."""

    def __init__(self, part: CheckedPart) -> None:
        self._part = part
        self._expected = 0
        self._intact = False  # whether the line before is one whose hash the next one has to name
        self.sha256 = NOTHING

    def line(self, line: bytes) -> None:
        before, self.sha256 = self.sha256, hashlib.sha256(line).hexdigest()
        part, expected = self._part, self._expected
        try:
            number, prev, content = _parse(line)
        except Corrupt as error:
            part.flaws.append(f"line {expected} was changed: {error.message}")
            self._expected, self._intact = expected + 1, False
            return
        if number < expected or part.end is not None:
            part.flaws.append(f"line {number} was added, or moved from its place")
            self._intact = False
            return
        if number > expected:
            part.flaws.append(f"line {expected} is missing" if number == expected + 1
                              else f"lines {expected} to {number - 1} are missing")  # fmt: skip
        elif self._intact and prev != before:
            part.flaws.append(f"line {number - 1} was changed, or line {number} in what it says of it")
        self._expected, self._intact = number + 1, True
        self._take(number, prev, content)

    def _take(self, number: int, prev: str, content: Line) -> None:
        part = self._part
        if isinstance(content, PartBegin) != (number == 0):
            part.flaws.append(f"line {number} was changed: it is not of the kind that stands there")
        elif isinstance(content, PartBegin):
            part.begin, part.prev = content, prev
        elif isinstance(content, PartEnd):
            part.end = content
        else:
            part.entries.append(content)


def _parse(line: bytes) -> _Read:
    """Raises Corrupt for a line that no process has written so."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise Corrupt("it is no line of an audit log")
    body = b"{" + found[3] + b"}"
    try:
        content = _DECODER.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise Corrupt("it cannot be read") from error
    if _ENCODER.encode(content) != body:
        raise Corrupt("no process writes it so")
    if isinstance(content, PartBegin) and content.format != FORMAT:
        raise Corrupt(f"it is of format {content.format}; this build reads {FORMAT}")
    return _Read(int(found[1]), found[2].decode(), content)


def entries_of(data: bytes) -> Iterable[Entry]:
    """The entries of a part that can be read, whatever is wrong with others: for searching."""
    for line in data[:PART_BYTES_MAX].split(b"\n"):
        if line:
            try:
                content = _parse(line).content
            except Corrupt:  # which `polychrome audit verify` names
                continue
            if isinstance(content, Event | Gap):
                yield content
