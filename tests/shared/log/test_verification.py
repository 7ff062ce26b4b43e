"""Entries prove themselves: what an append writes fits, and nothing else does."""

import hashlib
import time

import pytest
from redis.asyncio import Redis

from shared.catalog import Catalog, Database
from shared.log.batch import EncodedEntry, payload_checksum
from shared.log.log import Log
from shared.log.state import position_of
from shared.log.verification import DamagedEntry, RawEntry, verified_entry
from shared.redis.client import command
from shared.redis.keys import Keys
from tests.shared.log.appending import append, append_batches, make_collection
from tests.shared.log.damaging import replace_entry

FIELDS = [b"p", b"f", b"e", b"l", b"n", b"c", b"t", b"r", b"b", b"x", b"h", b"d"]
FIELDS_0_1_0 = [b"p", b"f", b"e", b"l", b"n", b"c", b"d"]


def raw(payload: bytes = b"payload") -> RawEntry:
    """An entry as it is described on the design page."""
    before, checksum = "5" * 40, payload_checksum(payload)
    hashed = f"{before} 3-0 7-0 5 9 1 2 4 812 1790000000000 some-request {checksum}"
    chain = hashlib.sha1(hashed.encode()).hexdigest()
    texts = ["3-0", "5", "9", "1", "2", "4 812", "1790000000000", "some-request", before, checksum, chain]
    values = [*(text.encode() for text in texts), payload]
    return b"7-0", [part for pair in zip(FIELDS, values, strict=True) for part in pair]


def test_an_entry_that_fits_is_read() -> None:
    entry = verified_entry("c", 0, raw())
    assert (entry.id, entry.previous, entry.first, entry.end, entry.last, entry.count) == ("7-0", "3-0", 5, 9, True, 2)
    assert (entry.time_ms, entry.request_id, entry.before_chain) == (1790000000000, "some-request", "5" * 40)
    assert (entry.payload, entry.totals) == (b"payload", "4 812")


@pytest.mark.parametrize("place", range(len(FIELDS)))
@pytest.mark.parametrize("bit", range(8))
def test_no_flipped_bit_of_any_field_is_believed(place: int, bit: int) -> None:
    id_, pairs = raw()
    for at in range(len(pairs[2 * place + 1])):
        damaged = bytearray(pairs[2 * place + 1])
        damaged[at] ^= 1 << bit
        with pytest.raises(DamagedEntry) as found:
            verified_entry("c", 3, (id_, [*pairs[: 2 * place + 1], bytes(damaged), *pairs[2 * place + 2 :]]))
        assert (found.value.collection_id, found.value.shard, found.value.entry_id) == ("c", 3, "7-0")
        assert found.value.first == 7
        # Of a bad payload the fields are believed; else nothing is.
        assert found.value.end == (9 if FIELDS[place] == b"d" else None)


@pytest.mark.parametrize("name", FIELDS)
def test_other_fields_than_an_append_writes_are_damage(name: bytes) -> None:
    id_, pairs = raw()
    at = 2 * FIELDS.index(name)
    for damaged in ([*pairs[:at], *pairs[at + 2 :]], [*pairs[:at], b"q", *pairs[at + 1 :]]):
        with pytest.raises(DamagedEntry):
            verified_entry("c", 0, (id_, damaged))


@pytest.mark.parametrize("values", [[b"x-0", b"1", b"2", b"1", b"1"], [b"0-0", b"1", b"\xff", b"1", b"1"]])
def test_an_entry_of_version_0_1_0_with_damaged_numbers_is_damage(values: list[bytes]) -> None:
    pairs = [part for pair in zip(FIELDS_0_1_0, [*values, b"1 2", b""], strict=True) for part in pair]
    with pytest.raises(DamagedEntry):
        verified_entry("c", 0, (b"1-0", pairs))


@pytest.fixture
def log(redis: Redis, keys: Keys) -> Log:
    return Log(redis, keys)


async def test_an_append_says_when_and_by_whom_and_goes_on_with_the_chain(
    catalog: Catalog, database: Database, log: Log
) -> None:
    collection = await make_collection(catalog, database)
    began_ms = int(time.time() * 1000)
    await append(log, collection, ["a"], request_id="first request")
    await append_batches(log, collection, {0: [EncodedEntry(0, 1, b"x"), EncodedEntry(1, 2, b"yz")]})
    read = await log.read(collection.id, 0)
    first, second, third = read.entries
    assert (first.request_id, first.before_chain) == ("first request", "")
    assert (second.before_chain, third.before_chain, read.state.chain) == (first.chain, second.chain, third.chain)
    assert second.request_id == third.request_id
    assert began_ms - 1000 <= first.time_ms <= second.time_ms == third.time_ms <= time.time() * 1000 + 1000


@pytest.mark.parametrize(
    ("number", "changed", "named", "reason"),
    [
        (1, {"d": b"garbage"}, "2-0", "payload"),
        (1, {"n": b"17"}, "2-0", "fields"),
        (2, {"p": b"1-0"}, "3-0", "fields"),
        (1, {"gone": b""}, "2-0", "lost it, before 3-0"),
    ],
)
async def test_a_damaged_or_missing_entry_is_named(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log,
    number: int, changed: dict[str, bytes], named: str, reason: str,
) -> None:  # fmt: skip
    collection = await make_collection(catalog, database)
    for id_ in "abcd":
        await append(log, collection, [id_])
    await replace_entry(redis, keys.log(collection.id, 0), number, **changed)
    before = await log.read(collection.id, 0)
    assert [position_of(entry.id) for entry in before.entries] == list(range(1, position_of(named)))
    assert not before.complete
    for _ in range(2):
        with pytest.raises(DamagedEntry, match=reason) as found:
            await log.read(collection.id, 0, before.entries[-1].id)
        assert (found.value.collection_id, found.value.shard, found.value.entry_id) == (collection.id, 0, named)


async def test_an_entry_of_another_history_does_not_continue_the_chain(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log
) -> None:
    """Whole by its own checksums, with the right ids: as if part of an older stream had come back."""
    mine = await make_collection(catalog, database, "mine")
    other = await make_collection(catalog, database, "other")
    for id_ in "ab":
        await append(log, mine, [id_])
    await append(log, other, ["x"])
    [(_, fields)] = await command(redis, "XRANGE", keys.log(other.id, 0), "-", "+")
    await replace_entry(redis, keys.log(mine.id, 0), 0, **{name.decode(): value for name, value in fields.items()})
    before = await log.read(mine.id, 0)
    assert [entry.id for entry in before.entries] == ["1-0"]
    with pytest.raises(DamagedEntry, match="chain does not continue"):
        await log.read(mine.id, 0, "1-0", after_chain=before.entries[-1].chain)


async def test_entries_of_version_0_1_0_are_read_and_the_chain_begins_behind_them(
    catalog: Catalog, database: Database, redis: Redis, keys: Keys, log: Log
) -> None:
    collection = await make_collection(catalog, database)
    for id_ in "abc":
        await append(log, collection, [id_])
    stream, state = keys.log(collection.id, 0), keys.state(collection.id)
    entries = await command(redis, "XRANGE", stream, "-", "+")
    await command(redis, "DEL", stream)
    for entry_id, fields in entries:
        kept = [part for name in FIELDS_0_1_0 for part in (name, fields[name])]
        await command(redis, "XADD", stream, entry_id, *kept)
    await command(redis, "HDEL", state, "chain:0")
    await append(log, collection, ["d"])
    read = await log.read(collection.id, 0)
    assert [entry.id for entry in read.entries] == ["1-0", "2-0", "3-0", "4-0"]
    assert [bool(entry.chain) for entry in read.entries] == [False, False, False, True]
    assert (read.entries[3].before_chain, read.state.chain) == ("", read.entries[3].chain)
