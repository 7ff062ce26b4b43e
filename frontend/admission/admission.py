"""Admission: whether a request is worked on now, by the quotas of its tenant, its database and its collection.

It comes after authentication and before the body is read: a request is charged what its headers say, and what it turned
out to be when it has been answered. What is overdrawn by then keeps the next ones waiting. A request waits a moment for
its turn, and is refused with 429 when that is not enough.

A frontend has a share of each rate and of each concurrency: the whole, divided by the frontends that are alive.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

from frontend.access.access_table import About, Metered
from frontend.admission.accounts import Account, Accounts
from frontend.admission.known_quotas import KnownQuotas
from frontend.admission.request_view import AdmittedRequest
from frontend.admission.tenant_quotas import NO_QUOTAS, PlaceQuotas, TenantQuotas
from frontend.uuids import canonical_uuid
from shared.errors import PolychromeError
from shared.process.clock import Clock
from shared.process.telemetry import get_logger
from shared.tenancy.quotas import Quota

if TYPE_CHECKING:
    from shared.catalog import Collection

WATCH_S: Final = 1.0
"""Period in which the generation of the control records is read, in seconds."""
SHARE_S: Final = 5.0
"""Period in which the frontends are counted, in seconds."""
TOKEN_BYTES: Final = 4
"""Bytes of text that count as one token of embedding."""

_REQUESTS: Final = {
    Metered.READ: Quota.READS_PER_S,
    Metered.CATALOG_READ: Quota.READS_PER_S,
    Metered.WRITE: Quota.WRITES_PER_S,
    Metered.CATALOG_WRITE: Quota.WRITES_PER_S,
}
"""The rate that a request counts for, by its kind of work. Others are not bounded by quotas."""

_COLLECTION: Final = About.COLLECTION  # members of an enumeration are slow to look up

log = get_logger(__name__)


class Admitted:
    """A request that is being worked on, until `close`."""

    __slots__ = ("_accounts", "_admission", "_announced", "_quotas")

    def __init__(self, admission: Admission, quotas: PlaceQuotas, accounts: Sequence[Account], announced: int) -> None:
        self._admission = admission
        self._quotas = quotas
        self._accounts = accounts
        self._announced = announced

    def close(self, bytes_in: int, bytes_out: int) -> None:
        """The request has been answered, or is given up: it had a body and an answer of so many bytes."""
        self._admission.finish(self._quotas, self._accounts, max(0, bytes_in - self._announced), bytes_out)


class Admission:
    """Admits the requests of one frontend. `frontends` counts those that are alive, and may raise Unavailable."""

    def __init__(self, known: KnownQuotas, clock: Clock, frontends: Callable[[], Awaitable[int]]) -> None:
        self.known = known
        self._clock = clock
        self._frontends = frontends
        self.accounts = Accounts()

    @property
    def active(self) -> bool:
        """Whether there are any plans or quotas."""
        return self.known.any

    async def admit(self, request: AdmittedRequest, tenant: str) -> None:
        """Sets the request's quotas and limits, and its ticket; `tenant` is the one whose work it is. Returns when the
        request may go on. Raises RateLimited, Unavailable.
        """
        quota = _REQUESTS.get(request.access.metered)
        if quota is None or not tenant:
            return
        quotas = _quotas_at(await self.known.of(tenant), request)
        request.quotas = quotas
        if quotas.limits is not None:
            request.limits = quotas.limits
        if not quotas.accounts:
            return
        announced = request.content_length or 0
        costs = {quota: 1.0, Quota.BYTES_IN_PER_S: 0.0, Quota.BYTES_OUT_PER_S: 0.0}
        now_s = self._clock.monotonic()
        wait_s, accounts = self.accounts.admit(quotas.accounts, costs, now_s)
        if announced:
            self.accounts.charge(quotas.accounts, {Quota.BYTES_IN_PER_S: announced}, now_s)
        request.ticket = Admitted(self, quotas, accounts, announced)
        if wait_s:
            await self._clock.sleep(wait_s)

    def finish(self, quotas: PlaceQuotas, accounts: Sequence[Account], bytes_in: int, bytes_out: int) -> None:
        """Charges what a request turned out to be beyond what it had announced, and ends it."""
        costs = {Quota.BYTES_IN_PER_S: float(bytes_in), Quota.BYTES_OUT_PER_S: float(bytes_out)}
        self.accounts.charge(quotas.accounts, costs, self._clock.monotonic())
        self.accounts.done(accounts)

    def charge_embedding(self, collection: Collection, texts: Sequence[str]) -> int:
        """Charges the tokens that texts probably have which are about to be embedded; how many these are. Raises
        RateLimited while those before them are not made up for.
        """
        accounts = self.quotas_of(collection.tenant, collection.database, collection.id).accounts
        if not any(Quota.EMBEDDING_TOKENS_PER_S in rates for _, rates in accounts):
            return 0
        now_s, tokens = self._clock.monotonic(), tokens_of(texts)
        self.accounts.require(accounts, Quota.EMBEDDING_TOKENS_PER_S, now_s)
        self.accounts.charge(accounts, {Quota.EMBEDDING_TOKENS_PER_S: tokens}, now_s)
        return tokens

    def correct_embedding(self, collection: Collection, tokens: int) -> None:
        """Charges so many tokens more, or gives as many back when there are fewer than none."""
        accounts = self.quotas_of(collection.tenant, collection.database, collection.id).accounts
        self.accounts.charge(accounts, {Quota.EMBEDDING_TOKENS_PER_S: tokens}, self._clock.monotonic())

    def quotas_of(self, tenant: str, database: str | None = None, collection: str | None = None) -> PlaceQuotas:
        """The quotas of a place of a tenant of whom a request is being answered."""
        known = self.known.last_known(tenant) if self.active else None
        return NO_QUOTAS if known is None else known.at(database, collection)

    # What changes

    async def look(self) -> None:
        """Reads whether the records have changed. Raises Unavailable."""
        if await self.known.look() and self.active:
            await self._count()

    async def _count(self) -> None:
        self.accounts.share = 1.0 / max(1, await self._frontends())

    async def watch(self) -> None:
        """A loop, for ever: looks every `WATCH_S`."""
        counted_s = self._clock.monotonic()
        while True:
            await self._clock.sleep(WATCH_S)
            try:
                await self.look()
                if self.active and self._clock.monotonic() - counted_s >= SHARE_S:
                    counted_s = self._clock.monotonic()
                    await self._count()
            except PolychromeError as error:
                log.warning("quotas_not_watched", message=error.message)


def _quotas_at(quotas: TenantQuotas, request: AdmittedRequest) -> PlaceQuotas:
    """The quotas of the place in the request's path, as far as it names one."""
    path_params, access = request.path_params, request.access
    collection = None
    if quotas.has_collections and access.about is _COLLECTION:
        collection = canonical_uuid(path_params[access.id_param])
    return quotas.at(path_params.get("database"), collection)


def tokens_of(texts: Sequence[str]) -> int:
    """About how many tokens texts have."""
    return sum(-(-len(text.encode(errors="surrogatepass")) // TOKEN_BYTES) for text in texts)
