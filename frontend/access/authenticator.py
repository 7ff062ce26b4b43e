"""The authenticator: from a request's credential to its principal.

A verdict is remembered under what the request has sent, so that an authenticated request costs one look-up in memory
(`known`). A verdict holds until its credential expires, and only while the *generation* of the control
records is the one that was known before the record was looked up: that word is read once a second, so whatever is
revoked or changed holds everywhere within two seconds. While the word cannot be read, verdicts hold for `stale_s` more;
after that everything is unavailable, but to the bootstrap key, which rests on a file alone.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final, NamedTuple, Protocol

from frontend.access.credentials import AUTHORIZATION, CHROMA_TOKEN, Headers, Password, Token, credential_of
from frontend.access.failures import Failures
from frontend.access.secret_files import User
from shared.errors import PolychromeError, Unauthenticated, Unavailable
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.process.watched_file import WatchedFile
from shared.tenancy.actions import SYSTEM_ACTIONS
from shared.tenancy.api_keys import KeyRecord, decode_record, digest_of, id_of_key, looks_like_key
from shared.tenancy.principal import Principal, Scope

VERDICTS_MAX: Final = 10_000
REFUSALS_MAX: Final = 10_000
"""Most verdicts, and most refused credentials, that are remembered."""
WATCH_S: Final = 1.0
"""Period in which the generation is read, and files are looked at, in seconds."""
USED_S: Final = 60.0
"""Period in which the last use of keys is written down, in seconds."""
VERDICT_S_MAX: Final = 60.0
"""Longest time for which a verdict about a token or a password is remembered, in seconds."""
HELD_MAX: Final = 256
"""Most requests that wait at once, for a verification or because their address has failed before; more are refused."""
VERIFICATIONS: Final = 2
"""Passwords and signatures that are verified at once: each is work of a core."""

_NONE: Final[list[str]] = []
REFUSED: Final = "The credential is not valid"
"""The message of every refusal of a well-formed credential: why is nobody's business."""
TOO_MANY: Final = "Too many attempts are waiting; try again later"
BOOTSTRAP: Final = Principal("bootstrap", Scope(), SYSTEM_ACTIONS)

log = get_logger(__name__)


class KeyRecords(Protocol):
    """The keys' records, looked up: those of `shared.tenancy.key_store`."""

    async def look_up(self, key_id: str) -> bytes | None:
        """The record as JSON; None when there is none. Raises Unavailable."""
        ...

    async def generation(self) -> str:
        """The word that changes with the records. Raises Unavailable."""
        ...

    async def note_used(self, key_ids: list[str], minute: int) -> None:
        """Writes down that these keys were used in this minute since the epoch. Raises Unavailable."""
        ...


_Sent = tuple[tuple[str, ...], tuple[str, ...]]
"""The values of the two headers with credentials, as they were sent."""


def _sent(headers: Headers) -> _Sent:
    return tuple(headers.getall(AUTHORIZATION, _NONE)), tuple(headers.getall(CHROMA_TOKEN, _NONE))


class _Verdict(NamedTuple):
    """A principal, until when it holds (seconds of the monotonic clock), and the generation that it rests on; None:
    none.
    """

    principal: Principal
    until_s: float
    generation: str | None


VerifyToken = Callable[[str], Awaitable[tuple[Principal, float]]]
"""A JWT's principal and when the token expires, by its text. Raises Unauthenticated, Unavailable."""
VerifyPassword = Callable[[User | None, str], Awaitable[bool]]
"""Whether a password is the user's; takes as long for a user that there is not."""


class Authenticator:
    """Verifies the credentials of one frontend. `bootstrap` has the hash of a system key ("" for none), `users` those
    of Basic; without `verify_token` a JWT is not valid.
    """

    def __init__(
        self,
        records: KeyRecords,
        clock: Clock,
        *,
        bootstrap: WatchedFile[str] | None = None,
        users: WatchedFile[dict[str, User]] | None = None,
        verify_password: VerifyPassword | None = None,
        verify_token: VerifyToken | None = None,
        stale_s: float = 30.0,
    ) -> None:
        self._records = records
        self._clock = clock
        self._bootstrap = bootstrap
        self._users = users
        self._verify_password = verify_password
        self._verify_token = verify_token
        self._stale_s = stale_s
        self._failures = Failures(clock)
        self._verdicts: OrderedDict[_Sent, _Verdict] = OrderedDict()
        self._refusals: OrderedDict[_Sent, str] = OrderedDict()
        self._word = ""
        self._files_changed = 0
        self._generation = ""  # the word of the records, and how often the files have changed
        self._heard_s = float("-inf")
        self._used: set[str] = set()
        self._held = 0
        self._verifying = asyncio.Semaphore(VERIFICATIONS)

    async def __call__(self, headers: Headers, remote: str | None) -> Principal:
        """The principal of a request with these headers from this address. Raises Unauthenticated, and
        Unavailable while nobody knows whether the credential still holds.
        """
        sent = _sent(headers)
        credential = credential_of(*sent)
        try:
            verdict = await self._verify(sent, credential, remote)
        except Unauthenticated:
            self._failures.note(remote)
            await self._hold_back(remote)
            raise
        self._verdicts[sent] = verdict
        self._verdicts.move_to_end(sent)
        while len(self._verdicts) > VERDICTS_MAX:
            self._verdicts.popitem(last=False)
        if verdict.principal.key_id is not None:
            self._used.add(verdict.principal.key_id)
        return verdict.principal

    def known(self, headers: Headers) -> Principal | None:
        """The principal of a request with these headers, if its credential was verified before and still holds; else
        the authenticator is to be called.
        """
        verdict = self._verdicts.get(_sent(headers))
        if verdict is None:
            return None
        principal, until_s, generation = verdict
        now_s = self._clock.monotonic()
        if now_s >= until_s:
            return None
        if generation is not None and (generation != self._generation or now_s - self._heard_s > self._stale_s):
            return None
        if principal.key_id is not None:
            self._used.add(principal.key_id)
        return principal

    async def _verify(self, sent: _Sent, credential: Token | Password, remote: str | None) -> _Verdict:
        if isinstance(credential, Password):
            return await self._password(credential, remote)
        if self._is_bootstrap(credential.text):
            return _Verdict(BOOTSTRAP, self._clock.monotonic() + VERDICT_S_MAX, None)
        self._require_heard()
        if looks_like_key(credential.text):
            return await self._key(sent, credential.text)
        return await self._token(credential.text)

    def _is_bootstrap(self, text: str) -> bool:
        known = self._bootstrap.content if self._bootstrap is not None else ""
        return bool(known) and hmac.compare_digest(known, digest_of(text))

    async def _key(self, sent: _Sent, text: str) -> _Verdict:
        key_id = id_of_key(text)
        if key_id is None:
            raise Unauthenticated("The API key is malformed: it was mistyped or cut off")
        generation = self._generation
        if self._refusals.get(sent) == generation:
            raise Unauthenticated(REFUSED)
        record = await self._record(key_id)
        until_s = None if record is None else record.holds_until(digest_of(text), self._clock.now())
        if record is None or until_s is None:
            self._refusals[sent] = generation
            while len(self._refusals) > REFUSALS_MAX:
                self._refusals.popitem(last=False)
            raise Unauthenticated(REFUSED)
        return _Verdict(record.principal(), self._moment(until_s), generation)

    async def _token(self, text: str) -> _Verdict:
        if self._verify_token is None:
            raise Unauthenticated(REFUSED)
        now_s, generation = self._clock.now(), self._generation
        async with self._turn():
            principal, expires_s = await self._verify_token(text)
        return _Verdict(principal, self._moment(min(expires_s, now_s + VERDICT_S_MAX)), generation)

    async def _password(self, credential: Password, remote: str | None) -> _Verdict:
        """Waits before the password is looked at: each attempt costs much, and an address that has failed before may
        only make a few.
        """
        if self._users is None or self._verify_password is None:
            raise Unauthenticated(REFUSED)
        self._require_heard()
        await self._hold_back(remote)
        user, now_s, generation = self._users.content.get(credential.name), self._clock.now(), self._generation
        async with self._turn():
            matches = await self._verify_password(user, credential.password)
        record = await self._record(user.key_id) if matches and user is not None else None
        if record is None or not record.usable(now_s):
            raise Unauthenticated(REFUSED)
        of_key = record.principal()
        principal = Principal(credential.name, of_key.scope, of_key.actions, of_key.key_id)
        until_s = min(record.expires_s or float("inf"), now_s + VERDICT_S_MAX)
        return _Verdict(principal, self._moment(until_s), generation)

    def _moment(self, time_s: float) -> float:
        """A time since the epoch, by the monotonic clock."""
        return self._clock.monotonic() + time_s - self._clock.now()

    async def _record(self, key_id: str) -> KeyRecord | None:
        """The record; None when there is none, or none that can be read."""
        data = await self._records.look_up(key_id)
        if data is None:
            return None
        try:
            return decode_record(data)
        except ValueError as error:
            log.error("key_record_not_read", key=key_id, message=str(error))  # noqa: TRY400 (refused, and not a fault of the code)
            return None

    def _require_heard(self) -> None:
        if self._clock.monotonic() - self._heard_s > self._stale_s:
            raise Unavailable("Nothing was heard of revoked keys for too long")

    async def _hold_back(self, remote: str | None) -> None:
        """Waits for as long as the address has deserved. Raises Unauthenticated when too many are waiting."""
        delay_s = self._failures.delay_s(remote)
        if not delay_s:
            return
        if self._held >= HELD_MAX:
            raise Unauthenticated(TOO_MANY)
        self._held += 1
        try:
            await self._clock.sleep(delay_s)
        finally:
            self._held -= 1

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """A turn at verifying what costs much. Raises Unauthenticated when too many wait for one."""
        if self._held >= HELD_MAX:
            raise Unauthenticated(TOO_MANY)
        self._held += 1
        try:
            async with self._verifying:
                yield
        finally:
            self._held -= 1

    # What changes

    async def look(self) -> None:
        """Reads the generation and, where they have changed, the files. Raises Unavailable, and at the first time
        OSError and ValueError.
        """
        files = [file for file in (self._bootstrap, self._users) if file is not None]
        if any([await asyncio.to_thread(file.load) for file in files]):
            self._files_changed += 1
            self._begin_generation()
        word = await self._records.generation()
        self._heard_s = self._clock.monotonic()
        if word != self._word:
            self._word = word
            self._begin_generation()

    def _begin_generation(self) -> None:
        self._generation = f"{self._word} {self._files_changed}"
        self._verdicts.clear()
        self._refusals.clear()

    async def watch(self) -> None:
        """A loop, for ever: looks every `WATCH_S`, and writes down which keys were used."""
        flushed_s = self._clock.monotonic()
        while True:
            await self._clock.sleep(WATCH_S)
            try:
                await self.look()
                if self._clock.monotonic() - flushed_s >= USED_S:
                    flushed_s = self._clock.monotonic()
                    await self._flush_used()
            except PolychromeError as error:
                log.warning("keys_not_watched", message=error.message)

    async def _flush_used(self) -> None:
        used, self._used = self._used, set()
        if used:
            await self._records.note_used(sorted(used), int(self._clock.now() // 60))
