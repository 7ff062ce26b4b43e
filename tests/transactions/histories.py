"""Whether a history of transactions could have come about one after the other.

Every value that is written is the name of the transaction that wrote it, so a read says whose write it saw. A
transaction that writes an id has read it, so of each id the order of its versions is known as well: each was read by
who wrote the next. Then (Adya 1999) the history is serialisable exactly when the graph of who must come before whom
has no cycle:

    T wrote what U read                 T before U
    T read what U overwrote             T before U
    T had ended before U began          T before U     (what makes it strict)

The last kind is what clients see when they talk to each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter


class Anomaly(AssertionError):
    """The history is not serialisable."""


@dataclass(frozen=True)
class Done:
    """A transaction that was committed, or wrote nothing. `reads`: id -> name of the version's writer, None where there
    was none. `ended` is None when nobody knows: its answer was lost.
    """

    name: str
    reads: Mapping[str, str | None]
    writes: frozenset[str]
    began: float
    ended: float | None


def settled(certain: Iterable[Done], unknown: Iterable[Done], last: Mapping[str, str | None]) -> list[Done]:
    """The certain ones, and those of unknown outcome of which something was seen: by others, or in the `last` state."""
    found = list(certain)
    candidates = {one.name: one for one in unknown}
    seen = {version for one in found for version in one.reads.values()} | set(last.values())
    while names := [name for name in candidates if name in seen]:
        for name in names:
            one = candidates.pop(name)
            found.append(one)
            seen |= set(one.reads.values())
    return found


def check_serialisable(history: Iterable[Done], last: Mapping[str, str | None]) -> list[str]:
    """Names in an order that explains everything, `last` being what is there in the end. Raises Anomaly."""
    done = {one.name: one for one in history}
    before: dict[str, set[str]] = {name: set() for name in done}
    next_writer = _next_writers(done)
    for one in done.values():
        for id_, version in one.reads.items():
            if version is not None:
                if version not in done or id_ not in done[version].writes:
                    raise Anomaly(f"{one.name} read {id_} as {version} left it, which did not write it")
                before[one.name].add(version)
            overwriter = next_writer.get((id_, version))
            if overwriter is not None and overwriter != one.name:
                before[overwriter].add(one.name)
    for id_, version in last.items():
        if (id_, version) in next_writer:
            raise Anomaly(f"{id_} is as {version} left it, and not as {next_writer[id_, version]}")
    _in_real_time(done, before)
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError as cycle:
        raise Anomaly(f"a cycle: {' before '.join(cycle.args[1])}") from cycle


def _next_writers(done: Mapping[str, Done]) -> dict[tuple[str, str | None], str]:
    """Who overwrote which version of an id."""
    found: dict[tuple[str, str | None], str] = {}
    for one in done.values():
        for id_ in one.writes:
            version = one.reads[id_]
            other = found.setdefault((id_, version), one.name)
            if other != one.name:
                raise Anomaly(f"{one.name} and {other} both overwrote {id_} as {version} left it")
    return found


def _in_real_time(done: Mapping[str, Done], before: dict[str, set[str]]) -> None:
    """An edge from each to those that began after its end; of several such ends the latest few are enough, for the
    others come before those.
    """
    ends = sorted((one.ended, one.name) for one in done.values() if one.ended is not None)
    for one in done.values():
        earlier = [name for ended, name in ends if ended < one.began]
        latest_began = max((done[name].began for name in earlier), default=0.0)
        before[one.name].update(name for name in earlier if _ended(done[name]) >= latest_began)


def _ended(one: Done) -> float:
    assert one.ended is not None
    return one.ended
