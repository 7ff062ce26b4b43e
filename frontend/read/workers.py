"""Calls to the query workers, one shard at a time, past workers that are dead, draining or slow.

1. Live workers are ranked per shard by rendezvous hashing, so that a shard's reads find a warm cache.
2. One of the best in rank is asked (`frontend.read.replicas`). When it fails, the next is asked at once; when it is
   merely slow, the next is asked as well and the first answer wins.
3. When nobody answered, membership is read again and all are tried again, until the failover time is over.

Which worker answers never decides what is true: any worker can serve any shard.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

import msgspec
from prometheus_client import Counter

from frontend.concurrency import off_loop
from frontend.read.prefetch import Prefetch
from frontend.read.replicas import in_turn
from shared.cluster.placement import rank
from shared.errors import DeadlineExceeded, PolychromeError, Unavailable, WrongWorker
from shared.process.telemetry import get_logger
from shared.rpc.messages import CountRequest, CountResponse, GetRequest, GetResponse, QueryRequest, QueryResponse, Shard
from shared.rpc.parts import Parts, let_go
from shared.rpc.search_messages import (
    FrequenciesRequest,
    FrequenciesResponse,
    NearestRequest,
    NearestResponse,
    OrderedRequest,
    OrderedResponse,
    SearchRequest,
    TallyRequest,
    TallyResponse,
)

if TYPE_CHECKING:
    from shared.cluster.membership import Member, Membership
    from shared.process.clock import Clock
    from shared.rpc.client import RpcClient

Response = TypeVar("Response")
Begun = TypeVar("Begun", memoryview, Parts)


class Begin(Protocol[Begun]):
    """Of `RpcClient`: begins a call; what comes of it is the whole answer, or its parts."""

    def __call__(self, address: str, method: str, payload: bytes, *, timeout_s: float) -> asyncio.Future[Begun]: ...


ANOTHER_MAY_ANSWER: Final = (Unavailable, WrongWorker, DeadlineExceeded)
"""Failures of one worker that say nothing about what another would answer."""

RANKS_MAX: Final = 10_000
"""Shards whose ranking is remembered; it is made anew for all when the members change."""

SUSPECT_CALLS: Final = 1 << 30
"""As good as infinitely busy."""

FAILOVERS = Counter("polychrome_frontend_worker_failovers_total", "Calls that went on to another query worker", ["why"])

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class CallTimeouts:
    """How long each kind of waiting may take, in seconds.

    `failover_s` bounds the search for a worker that answers at all, `call_s` one call, `hedge_after_s` is when a
    second worker is asked as well, `suspect_s` how long a worker that failed is ranked last, `poll_s` the age of
    membership, `retry_s` the pause after everybody failed.
    """

    failover_s: float = 10.0
    call_s: float = 60.0
    hedge_after_s: float = 2.0
    suspect_s: float = 1.0
    poll_s: float = 0.5
    retry_s: float = 0.05


class Workers:
    """The query workers as one thing that answers."""

    def __init__(
        self,
        membership: Membership,
        rpc: RpcClient,
        clock: Clock,
        timeouts: CallTimeouts | None = None,
        *,
        replicas: int = 1,
    ) -> None:
        self._membership = membership
        self._rpc = rpc
        self._clock = clock
        self._timeouts = timeouts or CallTimeouts()
        self._replicas = replicas
        self._prefetch = Prefetch(rpc, replicas)
        self._members: dict[str, Member] = {}
        self._ranks: dict[str, list[str]] = {}  # by shard, as of these members
        self._read_at: float | None = None
        self._reading = asyncio.Lock()
        self._suspect_until: dict[str, float] = {}

    @property
    def ready(self) -> bool:
        """Whether some worker is known that takes requests."""
        return bool(self._members)

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        return (self._poll,)

    async def count(self, request: CountRequest) -> CountResponse:
        return await self._ask("count", request.shard, request, CountResponse)

    async def get(self, request: GetRequest) -> GetResponse:
        return await self._ask("get", request.shard, request, GetResponse)

    async def query(self, request: QueryRequest) -> QueryResponse:
        return await self._ask("query", request.shard, request, QueryResponse)

    async def get_body(self, request: GetRequest) -> memoryview:
        """The answer to a request with `include`, where it arrived: it may have hundreds of MiB."""
        return await self._call("get", request.shard, msgspec.msgpack.encode(request), self._rpc.begin)

    async def get_parts(self, request: GetRequest) -> Parts:
        """The same as `get_body`, from its first part on."""
        return await self._call("get", request.shard, msgspec.msgpack.encode(request), self._rpc.begin_parts)

    async def query_body(self, request: QueryRequest) -> memoryview:
        """The answer to a request with `include`."""
        return await self._call("query", request.shard, msgspec.msgpack.encode(request), self._rpc.begin)

    async def search_body(self, request: SearchRequest) -> bytes:
        body: memoryview = await self._call("search", request.shard, msgspec.msgpack.encode(request), self._rpc.begin)
        return bytes(body)

    async def nearest(self, request: NearestRequest) -> NearestResponse:
        return await self._ask("search.nearest", request.shard, request, NearestResponse)

    async def frequencies(self, request: FrequenciesRequest) -> FrequenciesResponse:
        return await self._ask("search.frequencies", request.shard, request, FrequenciesResponse)

    async def ordered(self, request: OrderedRequest) -> OrderedResponse:
        return await self._ask("search.ordered", request.shard, request, OrderedResponse)

    async def tally(self, request: TallyRequest) -> TallyResponse:
        return await self._ask("search.tally", request.shard, request, TallyResponse)

    async def _ask(self, method: str, shard: Shard, request: msgspec.Struct, answer: type[Response]) -> Response:
        payload = msgspec.msgpack.encode(request)
        data = await self._call(method, shard, payload, self._rpc.begin)
        return await off_loop(len(data), msgspec.msgpack.decode, data, type=answer)

    async def _call(self, method: str, shard: Shard, payload: bytes, begin: Begin[Begun]) -> Begun:
        """The answer of whichever worker gives one; Unavailable or DeadlineExceeded when none does in time."""
        key = f"{shard.collection}/{shard.shard}"
        self._prefetch.used(key)
        deadline = self._clock.monotonic() + self._timeouts.failover_s
        failure: PolychromeError = Unavailable("No query worker is available")
        while True:
            try:
                return await self._try_in_rank(self._ranked(key), method, payload, begin)
            except ANOTHER_MAY_ANSWER as error:
                failure = error
            except _NobodyThereError:
                pass
            if self._clock.monotonic() + self._timeouts.retry_s >= deadline:
                raise failure if not isinstance(failure, WrongWorker) else Unavailable(failure.message)
            await self._read_members(max_age_s=self._timeouts.retry_s)
            await self._clock.sleep(self._timeouts.retry_s)

    async def _try_in_rank(self, workers: Sequence[Member], method: str, payload: bytes, begin: Begin[Begun]) -> Begun:
        """Ask one after the other, and a second beside a slow first. Raises the last failure when all failed."""
        if len(workers) == 1:
            return await self._ask_the_only(workers[0], method, payload, begin)
        waiting = list(workers)
        running: dict[asyncio.Future[Begun], Member] = {}
        failure: PolychromeError | _NobodyThereError = _NobodyThereError()
        try:
            while waiting or running:
                if waiting and len(running) < 2:
                    worker = waiting.pop(0)
                    call = begin(worker.address, method, payload, timeout_s=self._timeouts.call_s)
                    running[call] = worker
                hedge = self._timeouts.hedge_after_s if waiting and len(running) < 2 else None
                done, _ = await asyncio.wait(running, timeout=hedge, return_when=asyncio.FIRST_COMPLETED)
                if not done:
                    FAILOVERS.labels("slow").inc()
                for call in done:
                    worker = running.pop(call)
                    try:
                        return call.result()
                    except ANOTHER_MAY_ANSWER as error:
                        failure = error
                        self._distrust(worker, error)
        finally:
            for call in running:
                let_go(call)
        raise failure

    async def _ask_the_only(self, worker: Member, method: str, payload: bytes, begin: Begin[Begun]) -> Begun:
        """Without a second there is nothing to race."""
        call = begin(worker.address, method, payload, timeout_s=self._timeouts.call_s)
        try:
            return await call
        except ANOTHER_MAY_ANSWER as error:
            self._distrust(worker, error)
            raise
        except asyncio.CancelledError:
            let_go(call)
            raise

    def _ranked(self, key: str) -> list[Member]:
        """Workers for this shard in the order to ask, the recently failed ones behind all others."""
        if len(self._members) == 1:
            return list(self._members.values())
        ranked = self._ranks.get(key)
        if ranked is None:
            if len(self._ranks) >= RANKS_MAX:
                self._ranks.clear()
            ranked = self._ranks[key] = rank(key, list(self._members))
        if self._suspect_until:
            now = self._clock.monotonic()
            ranked = sorted(ranked, key=lambda worker: self._suspect_until.get(worker, 0.0) > now)
        loading = self._prefetch.loading(key)
        if loading:
            ranked = sorted(ranked, key=loading.__contains__)
        turn = in_turn(ranked, self._replicas, self._calls_open, random.randrange)
        return [self._members[worker] for worker in turn]

    def _calls_open(self, worker: str) -> int:
        if self._suspect_until.get(worker, 0.0) > self._clock.monotonic():
            return SUSPECT_CALLS
        return self._rpc.calls_open(self._members[worker].address)

    def _distrust(self, worker: Member, error: PolychromeError) -> None:
        FAILOVERS.labels(error.code).inc()
        now = self._clock.monotonic()
        if self._suspect_until.get(worker.id, 0.0) <= now:  # one line per failure, not per request that met it
            log.info("worker_failed", worker=worker.id, address=worker.address, code=error.code, message=error.message)
        self._suspect_until[worker.id] = now + self._timeouts.suspect_s

    async def _poll(self) -> None:
        while True:
            try:
                await self._read_members(max_age_s=0.0)
            except Unavailable as error:
                log.warning("membership_unavailable", message=error.message)
            await self._clock.sleep(self._timeouts.poll_s)

    async def _read_members(self, max_age_s: float) -> None:
        """Read membership unless somebody else has just done so. Unavailable when Redis is away."""
        async with self._reading:
            if self._read_at is not None and self._clock.monotonic() - self._read_at < max_age_s:
                return
            found = await self._membership.members()
            members = {member.id: member for member in found if not member.draining}
            before, self._members = self._members, members
            if members.keys() != before.keys():
                self._ranks.clear()
                self._prefetch.changed(list(before), members)
            self._suspect_until = {
                worker: until for worker, until in self._suspect_until.items() if worker in self._members
            }
            self._read_at = self._clock.monotonic()


class _NobodyThereError(Exception):
    """There was no worker to ask."""
