"""The result of a verification: what was found damaged, what nothing names, how much was read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NamedTuple

import msgspec
import orjson

from shared.catalog.damage import DamageKind, kind_of

FINDINGS_MAX: Final = 10_000
"""Most findings that are kept; more are counted."""

ORPHANS_NAMED_MAX: Final = 1000
"""Most orphans that are named; all are counted."""

IDS_NAMED_MAX: Final = 20
"""Most ids of lost records that a finding names; all are counted."""


class CollectionNames(NamedTuple):
    """The names that people know a collection by."""

    tenant: str
    database: str
    name: str


def name_in(row: bytes | str) -> str | None:
    """The name of the collection with this row; None when it is no row."""
    try:
        name = orjson.loads(row)["name"]
    except (orjson.JSONDecodeError, TypeError, KeyError):
        return None
    return name if isinstance(name, str) else None


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """Something that is damaged or missing: its name and kind, and what was found.

    `current`: the present state of the cluster needs it. Otherwise only the past does: a manifest that was replaced, a
    snapshot that was followed by others. `collection` and `shard` are those of a shard that needs it, `others` those of
    forks that need it, too. `checksum` is the xxh3-128, in hex, of the object as it was written, where that is known.
    `lost_rows` records are certainly damaged, or may be when it is not known which; `lost_ids` are some of their ids.
    `positions` are those of damaged operations of the log, the latter exclusive. `tenant`, `database` and
    `collection_name` are what people call the collection in which it is, empty where that is not known.
    """

    name: str
    kind: DamageKind
    what: str
    current: bool = True
    collection: str = ""
    shard: int | None = None
    checksum: str = ""
    lost_rows: int = 0
    lost_ids: list[str] = []
    positions: tuple[int, int | None] | None = None
    others: list[tuple[str, int]] = []
    tenant: str = ""
    database: str = ""
    collection_name: str = ""

    @property
    def shards(self) -> list[tuple[str, int]]:
        """All shards that need it."""
        return [*([] if self.shard is None else [(self.collection, self.shard)]), *self.others]

    @staticmethod
    def of(name: str, what: str, *, current: bool = True, collection: str = "", shard: int | None = None) -> Finding:
        """A finding whose kind its name tells."""
        return Finding(name, kind_of(name), what, current, collection, shard)


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a verification. `counts` are the things that were read, by their kind in the plural, and `bytes`.
    `sampled` is the share of segments that were read, 1 for all. `redis`: whether Redis was read as well;
    `redis_problem`: why not, when it should have been. `findings` is cut at FINDINGS_MAX, `orphans` at
    ORPHANS_NAMED_MAX: `found` and `orphan_objects` count all.
    """

    findings: list[Finding]
    found: int
    orphans: list[str]
    orphan_objects: int
    orphan_bytes: int
    counts: dict[str, int]
    sampled: float
    redis: bool
    redis_problem: str
    seconds: float

    @property
    def damaged(self) -> bool:
        """Whether something is damaged that is needed now."""
        return any(finding.current for finding in self.findings) or self.found > len(self.findings)


class Ledger:
    """Notes of a verification under way. `progress` is told the bytes that were read. For one event loop."""

    def __init__(self, progress: Callable[[int], None] = lambda _: None) -> None:
        self.counts: Counter[str] = Counter()
        self.found = 0
        self._progress = progress
        self._findings: dict[str, Finding] = {}
        self._orphans: dict[str, tuple[int, int]] = {}
        self._named: set[str] = set()
        self._names: dict[str, CollectionNames] = {}

    def read(self, size: int) -> None:
        """Counts bytes that were read."""
        self.counts["bytes"] += size
        self._progress(size)

    def add(self, findings: Iterable[Finding]) -> None:
        """Notes findings. Of several of one name, one that is current counts."""
        for finding in findings:
            known = self._findings.get(finding.name)
            self.found += known is None
            if known is not None and known.current and finding.current:
                others = [*known.others, *(shard for shard in finding.shards if shard not in known.shards)]
                self._findings[finding.name] = msgspec.structs.replace(known, others=others)
            if known is not None and (known.current or not finding.current):
                continue
            if known is not None or len(self._findings) < FINDINGS_MAX:
                self._findings[finding.name] = finding

    def orphan(self, name: str, objects: int, size: int) -> None:
        """Notes objects that nothing names, so far: an object's key, or the path of a segment."""
        self._orphans[name] = (objects, size)

    def named_elsewhere(self, paths: Iterable[str]) -> None:
        """Notes segments that shards of other collections name: they are no orphans."""
        self._named.update(paths)

    def call(self, names: Mapping[str, CollectionNames]) -> None:
        """Notes what collections are called, by id. What was noted before counts."""
        self._names = {**names, **self._names}

    def _with_names(self, finding: Finding) -> Finding:
        names = self._names.get(finding.collection or finding.name.partition("/")[0])
        if names is None:
            return finding
        tenant, database, name = names
        return msgspec.structs.replace(finding, tenant=tenant, database=database, collection_name=name)

    def report(self, *, sampled: float, redis: bool, seconds: float, redis_problem: str = "") -> Report:
        """The result."""
        orphans = {name: counted for name, counted in sorted(self._orphans.items()) if name not in self._named}
        findings = map(self._with_names, self._findings.values())
        return Report(
            findings=sorted(findings, key=lambda finding: (not finding.current, finding.name)),
            found=self.found,
            orphans=list(orphans)[:ORPHANS_NAMED_MAX],
            orphan_objects=sum(objects for objects, _ in orphans.values()),
            orphan_bytes=sum(size for _, size in orphans.values()),
            counts=dict(sorted(self.counts.items())),
            sampled=sampled,
            redis=redis,
            redis_problem=redis_problem,
            seconds=round(seconds, 3),
        )
