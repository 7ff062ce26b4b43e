"""The keys of the bucket: what lies where, and what a key names. Nobody else puts keys together or takes them apart.

```text
audit/<day>/<process>-<start>-<number, 10 digits>.jsonl                 a part of a process's audit log
audit/heads/<number, 20 digits>.json                                    the ends of all audit logs, as seen at a time
catalog/<number, 20 digits>.json.gz                                     a snapshot of the catalog
catalog/journal/<epoch, 10 digits>-<number, 20 digits>-<writer>.json    an entry of the catalog's journal
commits/<number, 20 digits>                                             the number of a commit
control/<kind>/<place>/<version, 10 digits>.json                        a version of a control record
probes/<any>                                                            objects that processes try the store with
usage/<hour>/<number, 4 digits>.json                                    what was used in an hour (`2026-12-01T02`)
<collection>/roots/<epoch, 10 digits>-<position, 20 digits>.json        a root
<collection>/<shard>/manifests/<version, 20 digits>.json                a manifest
<collection>/<shard>/segments/<segment id>/<file>                       a file of a segment; `condemned`: a mark on it
<collection>/<shard>/log/<first, 20 digits>-<end, 20 digits>.log        a sealed log object
```

Numbers are padded, so that keys sort by them. The objects of the first eight are nobody's; the others are those of a
collection, whose id is a UUID. A `parse_` function returns None for a key of any other form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NamedTuple

AUDIT: Final = "audit/"
AUDIT_HEADS: Final = f"{AUDIT}heads/"
AUDIT_DAYS: Final = f"{AUDIT}2"
"""The prefix of the parts of audit logs in listings, without the heads beside them: days begin with the year."""
CATALOG: Final = "catalog/"
SNAPSHOTS: Final = f"{CATALOG}0"
"""The prefix of snapshots in listings, without the journal beside them. No number needs all digits."""
JOURNAL: Final = f"{CATALOG}journal/"
COMMITS: Final = "commits/"
CONTROL: Final = "control/"
USAGE: Final = "usage/"
ERASURES: Final = "erasures/"
"""The prefix of the receipts of erasures."""
PROBES: Final = "probes/"
"""The prefix of the objects that a process creates and deletes to see whether the store takes writes."""

_AUDIT_PART: Final = re.compile(
    r"audit/(\d{4}-\d\d-\d\d)/([A-Za-z0-9_=%-][A-Za-z0-9._=%-]*-\d{13}[0-9a-f]{8})-(\d{10})\.jsonl", re.ASCII
)
_AUDIT_HEADS: Final = re.compile(r"audit/heads/(\d{20})\.json", re.ASCII)
_SNAPSHOT: Final = re.compile(r"catalog/(\d{20})\.json\.gz", re.ASCII)
_JOURNAL_ENTRY: Final = re.compile(r"catalog/journal/(\d{10})-(\d{20})-[0-9a-f]+\.json", re.ASCII)
_COMMIT: Final = re.compile(r"commits/(\d{20})", re.ASCII)
_CONTROL: Final = re.compile(r"control/([a-z]+)/([^/]+)/(\d{10})\.json", re.ASCII)
_USAGE: Final = re.compile(r"usage/(\d{4}-\d{2}-\d{2}T\d{2})/(\d{4})\.json", re.ASCII)
_COLLECTION: Final = re.compile(r"([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})/", re.ASCII)
_ROOT: Final = re.compile(r"([^/]+)/roots/(\d{10})-(\d{20})\.json", re.ASCII)
_OF_SHARD: Final = re.compile(r"([^/]+)/(\d+)/(manifests|segments|log)/.+", re.ASCII)
_MANIFEST: Final = re.compile(r"([^/]+)/(\d+)/manifests/(\d{20})\.json", re.ASCII)
_SEGMENT_FILE: Final = re.compile(r"([^/]+/\d+/segments/[^/]+)/[^/]+", re.ASCII)
_SEALED: Final = re.compile(r"([^/]+)/(\d+)/log/(\d{20})-(\d{20})\.log", re.ASCII)


class AuditPart(NamedTuple):
    """The place of a part of an audit log: its day (UTC, 2026-11-30), the chain that it belongs to (that of a life of
    a process, `<process>-<start>`), and its number in the chain, from 0.
    """

    day: str
    chain: str
    number: int

    @property
    def key(self) -> str:
        """The key of the object."""
        return f"{audit_day_prefix(self.day)}{self.chain}-{self.number:010d}.jsonl"


def audit_day_prefix(day: str) -> str:
    """The prefix of the keys of all parts of audit logs of a day."""
    return f"{AUDIT}{day}/"


def parse_audit_key(key: str) -> AuditPart | None:
    """The place of a part of an audit log."""
    found = _AUDIT_PART.fullmatch(key)
    return AuditPart(found[1], found[2], int(found[3])) if found else None


def audit_heads_key(number: int) -> str:
    """The key of the heads with this number."""
    return f"{AUDIT_HEADS}{number:020d}.json"


def parse_audit_heads_key(key: str) -> int | None:
    """The number of heads."""
    found = _AUDIT_HEADS.fullmatch(key)
    return int(found[1]) if found else None


def snapshot_key(number: int) -> str:
    """The key of the snapshot of the catalog with this number."""
    return f"{CATALOG}{number:020d}.json.gz"


def parse_snapshot_key(key: str) -> int | None:
    """The number of a snapshot."""
    found = _SNAPSHOT.fullmatch(key)
    return int(found[1]) if found else None


class EntryName(NamedTuple):
    """The content of the key of a journal's entry: the epoch of the cluster in which its rows were read, and its
    number.
    """

    epoch: int
    number: int


def journal_key(epoch: int, number: int, writer: str) -> str:
    """The key of an entry of the catalog's journal; `writer` is in hex."""
    return f"{JOURNAL}{epoch:010d}-{number:020d}-{writer}.json"


def parse_journal_key(key: str) -> EntryName | None:
    """The epoch and the number of an entry of the catalog's journal."""
    found = _JOURNAL_ENTRY.fullmatch(key)
    return EntryName(int(found[1]), int(found[2])) if found else None


def commit_key(number: int) -> str:
    """The key under which the number of a commit is left."""
    return f"{COMMITS}{number:020d}"


def parse_commit_key(key: str) -> int | None:
    """The number of a commit."""
    found = _COMMIT.fullmatch(key)
    return int(found[1]) if found else None


def control_prefix(kind: str, place: str) -> str:
    """The prefix of the keys of all versions of a control record; `place` is its name, encoded."""
    return f"{CONTROL}{kind}/{place}/"


def control_key(kind: str, place: str, version: int) -> str:
    """The key of a version of a control record; the keys of a record's versions sort by version."""
    return f"{control_prefix(kind, place)}{version:010d}.json"


def parse_control_key(key: str) -> tuple[str, str, int] | None:
    """(kind, place, version) of a control record's key."""
    found = _CONTROL.fullmatch(key)
    return (found[1], found[2], int(found[3])) if found else None


def receipt_key(erasure: str) -> str:
    """The key of the receipt of an erasure, from the erasure's id."""
    return f"{ERASURES}{erasure}.json"


def usage_prefix(hour: str) -> str:
    """The prefix of the keys of what was used in an hour; of a part of its name, those of several hours."""
    return f"{USAGE}{hour}"


def usage_key(hour: str, number: int) -> str:
    """The key of a part of what was used in an hour; the keys sort by hour, then by number."""
    return f"{USAGE}{hour}/{number:04d}.json"


def parse_usage_key(key: str) -> tuple[str, int] | None:
    """(hour, number) of the key of a part of what was used."""
    found = _USAGE.fullmatch(key)
    return (found[1], int(found[2])) if found else None


def collection_of(key: str) -> str | None:
    """The collection below whose prefix the key stands; None for objects that belong to none."""
    found = _COLLECTION.match(key)
    return found[1] if found else None


def roots_prefix(collection: str) -> str:
    """The prefix of the keys of a collection's roots."""
    return f"{collection}/roots/"


def root_key(collection: str, epoch: int, position: int) -> str:
    """The key of a root's object; the keys of a collection's roots sort from the oldest to the newest."""
    return f"{roots_prefix(collection)}{epoch:010d}-{position:020d}.json"


def parse_root_key(key: str) -> tuple[str, int, int] | None:
    """(collection, epoch, position) of a root's key."""
    found = _ROOT.fullmatch(key)
    return (found[1], int(found[2]), int(found[3])) if found else None


class ShardObject(NamedTuple):
    """An object of a shard, by its key: `kind` is `manifests`, `segments` or `log`."""

    collection: str
    shard: int
    kind: str


def shard_prefix(collection: str, shard: int) -> str:
    """The prefix of the keys of all objects of a shard."""
    return f"{collection}/{shard}/"


def parse_shard_key(key: str) -> ShardObject | None:
    """The shard that an object belongs to, and of which kind it is, whatever it is called."""
    found = _OF_SHARD.fullmatch(key)
    return ShardObject(found[1], int(found[2]), found[3]) if found else None


def manifests_prefix(collection: str, shard: int) -> str:
    """The prefix of the keys of a shard's manifests."""
    return f"{shard_prefix(collection, shard)}manifests/"


def manifest_key(collection: str, shard: int, version: int) -> str:
    """The key of a manifest's object; the keys of a shard's manifests sort by version."""
    return f"{manifests_prefix(collection, shard)}{version:020d}.json"


def parse_manifest_key(key: str) -> tuple[str, int, int] | None:
    """(collection, shard, version) of a manifest's key."""
    found = _MANIFEST.fullmatch(key)
    return (found[1], int(found[2]), int(found[3])) if found else None


def segment_path(collection: str, shard: int, segment: str) -> str:
    """The key prefix of a segment's files, without the last slash."""
    return f"{shard_prefix(collection, shard)}segments/{segment}"


def segment_file_key(path: str, name: str) -> str:
    """The key of a file of the segment with this path."""
    return f"{path}/{name}"


def parse_segment_file_key(key: str) -> str | None:
    """The path of the segment that a file, or a mark, belongs to."""
    found = _SEGMENT_FILE.fullmatch(key)
    return found[1] if found else None


def condemned_key(path: str) -> str:
    """The key of the mark that garbage collection leaves beside a segment's files a round before it deletes them.
    `path` is the segment's.
    """
    return segment_file_key(path, "condemned")


@dataclass(frozen=True, slots=True)
class SealedRange:
    """A sealed log object by its key: it has all operations of the shard at the positions [first, end)."""

    collection: str
    shard: int
    first: int
    end: int

    @property
    def key(self) -> str:
        """The key of the object."""
        return f"{log_prefix(self.collection, self.shard)}{self.first:020d}-{self.end:020d}.log"


def log_prefix(collection: str, shard: int) -> str:
    """The prefix of the keys of a shard's sealed log objects."""
    return f"{shard_prefix(collection, shard)}log/"


def parse_log_key(key: str) -> SealedRange | None:
    """The range that a sealed log object's key names."""
    found = _SEALED.fullmatch(key)
    return SealedRange(found[1], int(found[2]), int(found[3]), int(found[4])) if found else None
