"""Calls to the query workers, one shard at a time, past workers that are dead, draining or slow.

1. The workers are put into an order: one of the best for the shard comes first (`frontend.read.candidates`).
2. They are asked one after the other, as far as they fail or are slow (`frontend.read.race`), with a budget for what is
   asked twice (`frontend.read.hedging`).
3. When all have failed, membership is read again and all are tried again, until the failover time is over.

Which worker answers never decides what is true: any worker can serve any shard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from frontend.concurrency import off_loop
from frontend.read.candidates import Candidates
from frontend.read.hedging import HEDGE_PERCENT_MAX, HedgeBudget, estimated_rows
from frontend.read.race import ANOTHER_MAY_ANSWER, Begun, Race
from frontend.read.worker_losses import WorkerLosses
from shared.errors import PolychromeError, Unavailable, WrongWorker
from shared.rpc import query_worker_methods as methods
from shared.rpc.chunks import Answer, discard
from shared.rpc.messages import CountRequest, CountResponse, GetRequest, GetResponse, QueryRequest, QueryResponse
from shared.rpc.method import Method, RawMethod, Response
from shared.rpc.query_worker_methods import ReadRequest
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

Request = TypeVar("Request", bound=ReadRequest)

COST_MAX: Final = 1_000_000.0
"""Estimated rows of a call whose cost depends on the shard's size, or is greater: what is measured corrects it."""


class Begin(Protocol[Begun]):
    """A method of `RpcClient` that begins a call. The answer comes as a whole, or a long one in chunks."""

    def __call__(
        self, address: str, method: str, payload: bytes, *, timeout_s: float, cost: float
    ) -> asyncio.Future[Begun]: ...


@dataclass(frozen=True, slots=True)
class CallTimeouts:
    """Longest time of each kind of waiting, in seconds.

    `failover_s` bounds the search for a worker that answers at all, `call_s` one call, `hedge_after_s` is when a call
    counts as slow, `suspect_s` how long a worker that failed is ranked last, `poll_s` the age of membership, `retry_s`
    the pause after everybody failed.
    """

    failover_s: float = 10.0
    call_s: float = 60.0
    hedge_after_s: float = 2.0
    suspect_s: float = 1.0
    poll_s: float = 0.5
    retry_s: float = 0.05


class Workers:
    """The query workers as one service that answers. Of a hundred calls at most `hedge_percent_max` are hedged.

    Every call raises Unavailable, DeadlineExceeded or Backoff when no worker answers in time, NotRepeated when workers
    were lost over it, and otherwise what the
    worker found: Gone for a deleted collection, StaleGeneration for a shard of an earlier layout, StaleRead for a
    position that is not kept any more, InvalidArgument for vectors of another dimension, Corrupt for damaged data.
    """

    def __init__(
        self,
        membership: Membership,
        rpc: RpcClient,
        clock: Clock,
        timeouts: CallTimeouts | None = None,
        *,
        replicas: int = 1,
        hedge_percent_max: float = HEDGE_PERCENT_MAX,
    ) -> None:
        self._rpc = rpc
        self._clock = clock
        self._timeouts = timeouts or CallTimeouts()
        self._candidates = Candidates(membership, rpc, clock, replicas=replicas, suspect_s=self._timeouts.suspect_s)
        self._budget = HedgeBudget(hedge_percent_max)

    @property
    def ready(self) -> bool:
        """Whether some worker is known that takes requests."""
        return self._candidates.any_ready

    @property
    def loops(self) -> Sequence[Callable[[], Coroutine[Any, Any, None]]]:
        return (lambda: self._candidates.poll(self._timeouts.poll_s),)

    async def count(self, request: CountRequest) -> CountResponse:
        return await self._ask(methods.COUNT, request)

    async def get(self, request: GetRequest) -> GetResponse:
        return await self._ask(methods.GET, request)

    async def query(self, request: QueryRequest) -> QueryResponse:
        return await self._ask(methods.QUERY, request)

    async def get_body(self, request: GetRequest) -> memoryview:
        """The answer to a request with `include`, where it arrived: it may have hundreds of MiB."""
        return await self._call(methods.GET_BODY, request, self._rpc.begin)

    async def get_chunks(self, request: GetRequest) -> Answer:
        """The answer to a request with `include`; when it is long, in chunks, which have to be read or closed."""
        return await self._call(methods.GET_BODY, request, self._rpc.begin_chunks)

    async def query_body(self, request: QueryRequest) -> Answer:
        """The answer to a request with `include`; when it is long, in chunks, which have to be read or closed."""
        return await self._call(methods.QUERY_BODY, request, self._rpc.begin_chunks)

    async def search_body(self, request: SearchRequest) -> Answer:
        """The body of the client's answer; when it is long, in chunks, which have to be read or closed."""
        return await self._call(methods.SEARCH, request, self._rpc.begin_chunks)

    async def nearest(self, request: NearestRequest) -> NearestResponse:
        return await self._ask(methods.SEARCH_NEAREST, request)

    async def frequencies(self, request: FrequenciesRequest) -> FrequenciesResponse:
        return await self._ask(methods.SEARCH_FREQUENCIES, request)

    async def ordered(self, request: OrderedRequest) -> OrderedResponse:
        return await self._ask(methods.SEARCH_ORDERED, request)

    async def tally(self, request: TallyRequest) -> TallyResponse:
        return await self._ask(methods.SEARCH_TALLY, request)

    async def _ask(self, method: Method[Request, Response], request: Request) -> Response:
        data = await self._call(method, request, self._rpc.begin)
        return await off_loop(len(data), method.decode_response, data)

    async def _call(self, method: RawMethod[Request], request: Request, begin: Begin[Begun]) -> Begun:
        """The answer of whichever worker gives one; Unavailable or DeadlineExceeded when none does in time."""
        payload = method.encode_request(request)
        key = f"{request.shard.collection}/{request.shard.shard}"
        deadline = self._clock.monotonic() + self._timeouts.failover_s
        failure: PolychromeError = Unavailable("No query worker is available")
        losses = WorkerLosses(request)
        cost = min(COST_MAX, estimated_rows(request))

        def begin_at(worker: Member) -> asyncio.Future[Begun]:
            return begin(worker.address, method.name, payload, timeout_s=self._timeouts.call_s, cost=cost)

        while True:
            workers = self._candidates.ranked(key)
            try:
                if len(workers) == 1:
                    return await self._ask_the_only(workers[0], begin_at, losses)
                if workers:
                    race = Race(workers, request, begin_at, self._candidates, self._budget, losses, self._clock)
                    return await race.run(self._timeouts.hedge_after_s)
            except ANOTHER_MAY_ANSWER as error:
                if losses.is_over:
                    raise
                failure = error
            if self._clock.monotonic() + self._timeouts.retry_s >= deadline:
                raise failure if not isinstance(failure, WrongWorker) else Unavailable(failure.message)
            await self._candidates.refresh(max_age_s=self._timeouts.retry_s)
            await self._clock.sleep(self._timeouts.retry_s)

    async def _ask_the_only(
        self, worker: Member, begin_at: Callable[[Member], asyncio.Future[Begun]], losses: WorkerLosses
    ) -> Begun:
        """Without a second worker there is nothing to race."""
        call = begin_at(worker)
        try:
            return await call
        except ANOTHER_MAY_ANSWER as error:
            self._candidates.distrust(worker, error)
            losses.note(error)
            raise
        except asyncio.CancelledError:
            discard(call)
            raise
