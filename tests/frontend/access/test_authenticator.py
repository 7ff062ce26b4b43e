"""From credentials to principals: what is remembered how long, and what a change, a loss or an attack does."""

from __future__ import annotations

import asyncio
import base64
import os
from pathlib import Path

import pytest

from frontend.access.authenticator import BOOTSTRAP, HELD_MAX, USED_S, VERDICT_S_MAX, Authenticator
from frontend.access.failures import FREE, HALF_LIFE_S, Failures, network_of
from frontend.access.passwords import hash_password, verify_password
from frontend.access.secret_files import User, parse_bootstrap, parse_users
from shared.errors import Unauthenticated, Unavailable
from shared.process.watched_file import WatchedFile
from shared.tenancy.api_keys import digest_of, draw_key
from tests.frontend.access.making import MemoryRecords, SteppedClock, bearer, headers, opened
from tests.shared.tenancy.making import NOW_S, new_record


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture
def records() -> MemoryRecords:
    return MemoryRecords()


async def test_a_key_is_looked_up_once_and_then_remembered(records: MemoryRecords, clock: SteppedClock) -> None:
    text, record = new_record()
    records.put(record)
    authenticator = await opened(records, clock)
    principal = await authenticator(bearer(text), "127.0.0.1")
    assert principal == record.principal()
    assert await authenticator(bearer(text), "127.0.0.1") is principal
    assert await authenticator(headers(x_chroma_token=text), "127.0.0.1") == principal
    assert records.looked_up == [record.id, record.id]


async def test_a_key_that_was_revoked_is_refused_after_the_next_look(
    records: MemoryRecords, clock: SteppedClock
) -> None:
    text, record = new_record()
    records.put(record)
    authenticator = await opened(records, clock)
    await authenticator(bearer(text), None)
    records.put(record.revoked(NOW_S))
    await authenticator.look()
    with pytest.raises(Unauthenticated):
        await authenticator(bearer(text), None)


async def test_a_verdict_that_a_look_overtook_is_not_remembered(records: MemoryRecords, clock: SteppedClock) -> None:
    """The record was read before the key was revoked, and arrives after the look that says so."""
    text, record = new_record()
    records.put(record)
    authenticator = await opened(records, clock)
    read = records.look_up

    async def slowly(key_id: str) -> bytes | None:
        found = await read(key_id)
        records.put(record.revoked(NOW_S))
        await authenticator.look()
        return found

    records.look_up = slowly  # type: ignore[method-assign]
    await authenticator(bearer(text), None)
    records.look_up = read  # type: ignore[method-assign]
    with pytest.raises(Unauthenticated):
        await authenticator(bearer(text), None)


async def test_a_key_holds_no_longer_than_it_says_without_any_look(records: MemoryRecords, clock: SteppedClock) -> None:
    text, record = new_record(expires_s=NOW_S + 5)
    records.put(record)
    authenticator = await opened(records, clock)
    await authenticator(bearer(text), None)
    clock.now_s += 5
    with pytest.raises(Unauthenticated):
        await authenticator(bearer(text), None)


async def test_while_nobody_says_what_was_revoked_keys_hold_for_a_while_and_then_nothing_does(
    records: MemoryRecords, clock: SteppedClock
) -> None:
    text, record = new_record()
    records.put(record)
    authenticator = await opened(records, clock, stale_s=30.0)
    await authenticator(bearer(text), None)
    records.away = True
    clock.now_s += 30
    await authenticator(bearer(text), None)
    clock.now_s += 1
    with pytest.raises(Unavailable):
        await authenticator(bearer(text), None)
    records.away = False
    await authenticator.look()
    await authenticator(bearer(text), None)


async def test_an_unknown_key_is_remembered_as_such_until_something_changes(
    records: MemoryRecords, clock: SteppedClock
) -> None:
    text, record = new_record()
    authenticator = await opened(records, clock)
    for _ in range(3):
        with pytest.raises(Unauthenticated):
            await authenticator(bearer(text), "10.0.0.1")
    assert records.looked_up == [record.id]
    records.put(record)
    await authenticator.look()
    await authenticator(bearer(text), "10.0.0.1")


async def test_a_mistyped_key_is_not_looked_up(records: MemoryRecords, clock: SteppedClock) -> None:
    authenticator = await opened(records, clock)
    with pytest.raises(Unauthenticated, match="mistyped"):
        await authenticator(bearer(draw_key().text[:-1] + "!"), None)
    assert records.looked_up == []


async def test_another_key_of_the_same_id_is_refused(records: MemoryRecords, clock: SteppedClock) -> None:
    _, record = new_record()
    records.put(record)
    authenticator = await opened(records, clock)
    with pytest.raises(Unauthenticated):
        await authenticator(bearer(draw_key(record.id).text), None)


async def test_a_record_that_cannot_be_read_refuses_its_key(records: MemoryRecords, clock: SteppedClock) -> None:
    text, record = new_record()
    records.records[record.id] = b'{"id":"x"}'
    authenticator = await opened(records, clock)
    with pytest.raises(Unauthenticated):
        await authenticator(bearer(text), None)


async def test_verdicts_that_are_remembered_are_bounded(
    records: MemoryRecords, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("frontend.access.authenticator.VERDICTS_MAX", 10)
    text, record = new_record()
    records.put(record)
    authenticator = await opened(records, clock)
    for number in range(15):
        await authenticator(headers(authorization=f"Bearer {' ' * number}{text}"), None)
    assert len(authenticator._verdicts) == 10


async def test_uses_are_written_down_once_a_minute(records: MemoryRecords, clock: SteppedClock) -> None:
    text, record = new_record()
    records.put(record)
    authenticator = await opened(records, clock)
    await authenticator(bearer(text), None)
    watch = asyncio.create_task(authenticator.watch())
    while not records.used:  # noqa: ASYNC110 (the clock is stepped by whoever sleeps)
        await asyncio.sleep(0)
    watch.cancel()
    assert records.used == {record.id: int((NOW_S + USED_S) // 60)}


async def test_the_bootstrap_key_needs_nothing_but_its_file_and_changes_with_it(
    records: MemoryRecords, clock: SteppedClock, tmp_path: Path
) -> None:
    file, text, other = tmp_path / "key", draw_key().text, draw_key().text
    file.write_text(f"{digest_of(text)}\n")
    authenticator = await opened(records, clock, bootstrap=WatchedFile(file, parse_bootstrap, ""), stale_s=1.0)
    records.away = True
    clock.now_s += 100
    assert await authenticator(bearer(text), None) is BOOTSTRAP
    file.write_text(other)
    os.utime(file, ns=(1, 1))
    records.away = False
    await authenticator.look()
    assert await authenticator(bearer(other), None) is BOOTSTRAP
    with pytest.raises(Unauthenticated):
        await authenticator(bearer(text), None)
    file.unlink()
    await authenticator.look()
    with pytest.raises(Unauthenticated):
        await authenticator(bearer(other), None)


@pytest.mark.parametrize("text", ["", "secret", "0" * 63, "F" * 64, "pck_cut off"])
async def test_a_bootstrap_file_with_anything_else_keeps_a_frontend_from_starting(
    records: MemoryRecords, clock: SteppedClock, tmp_path: Path, text: str
) -> None:
    (tmp_path / "key").write_text(text)
    with pytest.raises(ValueError, match="expected an API key"):
        await opened(records, clock, bootstrap=WatchedFile(tmp_path / "key", parse_bootstrap, ""))
    with pytest.raises(OSError, match="No such file"):
        await opened(records, clock, bootstrap=WatchedFile(tmp_path / "none", parse_bootstrap, ""))


# Basic


def login(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


async def with_user(records: MemoryRecords, clock: SteppedClock, file: Path, password: str) -> Authenticator:
    _, record = new_record()
    records.put(record)
    hashed = await asyncio.to_thread(hash_password, password)
    await asyncio.to_thread(file.write_text, f"# users\n\nmia:{hashed}:{record.id}\n")
    users: WatchedFile[dict[str, User]] = WatchedFile(file, parse_users, {})
    return await opened(records, clock, users=users, verify_password=verify_password)


async def test_a_user_has_the_scope_and_the_actions_of_its_key(
    records: MemoryRecords, clock: SteppedClock, tmp_path: Path
) -> None:
    authenticator = await with_user(records, clock, tmp_path / "users", "secret:1")
    principal = await authenticator(headers(authorization=login("mia", "secret:1")), None)
    assert (principal.id, principal.scope.tenant) == ("mia", "acme")
    for name, password in (("mia", "secret"), ("mio", "secret:1"), ("mia", "")):
        with pytest.raises(Unauthenticated):
            await authenticator(headers(authorization=login(name, password)), None)
    (tmp_path / "users").write_text("")
    await authenticator.look()
    with pytest.raises(Unauthenticated):
        await authenticator(headers(authorization=login("mia", "secret:1")), None)


async def test_a_password_is_verified_once_a_minute(
    records: MemoryRecords, clock: SteppedClock, tmp_path: Path
) -> None:
    authenticator = await with_user(records, clock, tmp_path / "users", "secret")
    verified: list[str] = []

    async def verify(user: User | None, password: str) -> bool:
        verified.append(password)
        return True

    authenticator._verify_password = verify
    for _ in range(3):
        await authenticator(headers(authorization=login("mia", "secret")), None)
    clock.now_s += VERDICT_S_MAX
    await authenticator.look()
    await authenticator(headers(authorization=login("mia", "secret")), None)
    assert verified == ["secret", "secret"]


async def test_a_user_whose_key_was_revoked_is_refused(
    records: MemoryRecords, clock: SteppedClock, tmp_path: Path
) -> None:
    authenticator = await with_user(records, clock, tmp_path / "users", "secret")
    await authenticator(headers(authorization=login("mia", "secret")), None)
    [key_id] = records.records
    records.records.clear()
    records.put(new_record(id=key_id)[1].revoked(NOW_S))
    await authenticator.look()
    with pytest.raises(Unauthenticated):
        await authenticator(headers(authorization=login("mia", "secret")), None)


@pytest.mark.parametrize(
    "line",
    ["mia", "mia:$argon2id$x", "mia:plain:aaaaaaaaaaaaaaaa", "mia:$argon2id$x:short", ":$argon2id$x:" + "a" * 16],
)
def test_a_line_of_the_users_file_that_is_none_is_named_and_not_shown(line: str) -> None:
    with pytest.raises(ValueError, match="line 2") as caught:
        parse_users(f"\n{line}\n")
    assert line not in str(caught.value)


async def test_a_file_that_became_unreadable_stays_what_it_was(tmp_path: Path) -> None:
    file: WatchedFile[dict[str, User]] = WatchedFile(tmp_path / "users", parse_users, {})
    (tmp_path / "users").write_text(f"mia:$argon2id$x:{'a' * 16}")
    assert file.load()
    (tmp_path / "users").write_text("half a li")
    assert not file.load()
    assert set(file.content) == {"mia"}


# Failures


async def test_failures_of_an_address_are_delayed_more_and_more_and_forgotten(
    records: MemoryRecords, clock: SteppedClock
) -> None:
    authenticator = await opened(records, clock)
    for _ in range(FREE + 4):
        with pytest.raises(Unauthenticated):
            await authenticator(bearer(draw_key().text), "10.0.0.1")
    delays = clock.slept
    assert len(delays) == 4
    assert delays == sorted(delays)
    text, record = new_record()
    records.put(record)
    await authenticator.look()
    clock.slept = []
    await authenticator(bearer(text), "10.0.0.1")
    assert clock.slept == []


async def test_no_more_than_some_requests_are_held_back_at_once(records: MemoryRecords, clock: SteppedClock) -> None:
    authenticator = await opened(records, clock)
    authenticator._held = HELD_MAX
    for _ in range(FREE):
        authenticator._failures.note("10.0.0.1")
    with pytest.raises(Unauthenticated, match="Too many"):
        await authenticator(bearer(draw_key().text), "10.0.0.1")


def test_failures_count_for_their_address_alone_and_by_halves_later(clock: SteppedClock) -> None:
    failures = Failures(clock)
    for _ in range(FREE + 8):
        failures.note("10.0.0.1")
    assert failures.delay_s("10.0.0.1") == 5.0
    assert failures.delay_s("10.0.0.2") == 0.0
    clock.now_s += 2 * HALF_LIFE_S
    assert failures.delay_s("10.0.0.1") == 0.0


def test_a_sender_with_a_whole_network_counts_as_one_address() -> None:
    assert network_of("2001:db8::1") == network_of("2001:db8::ffff:1")
    assert network_of("2001:db8::1") != network_of("2001:db8:0:1::1")
    assert network_of("::ffff:10.0.0.1") == network_of("10.0.0.1")
    assert network_of(None) == ""
