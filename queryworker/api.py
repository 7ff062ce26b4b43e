"""The methods that frontends call (`shared.rpc.messages`).

Calls that came together are sorted by shard; each shard is made current once for all of them. Then plain queries that
differ in nothing but their vectors are one job for a thread, and every other call is a job of its own, so that a slow
filter holds nobody up.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from queryworker import answers, searching
from queryworker.answers import Reading
from queryworker.batches import batches
from queryworker.shards import Shards
from queryworker.threads import Threads
from shared import telemetry
from shared.errors import InvalidArgument
from shared.rpc.messages import EVERYTHING, CountRequest, GetRequest, PrefetchRequest, QueryRequest, Shard
from shared.rpc.search_messages import (
    FrequenciesRequest,
    NearestRequest,
    OrderedRequest,
    SearchRequest,
    TallyRequest,
)
from shared.rpc.server import Call, Serve

DECODED_ON_LOOP_MAX: Final = 64 * 1024
"""Longer requests are decoded in a thread."""


class _OfShard(Protocol):
    @property
    def shard(self) -> Shard: ...


Request = TypeVar("Request", bound=_OfShard)
Work = Callable[[Reading, Sequence[Any]], Sequence[bytes]]


class _Asked(NamedTuple):
    """A call and what it says."""

    call: Call
    request: Any


class _Method(NamedTuple):
    """How calls of one method are decoded, answered on the loop when they are light, and divided into jobs."""

    decode: Callable[[memoryview], Any]
    is_light: Callable[[Any], bool]
    jobs: Callable[[Sequence[Any]], Sequence[Sequence[int]]]
    work: Work


class Api:
    """Serves `RpcServer`."""

    def __init__(self, shards: Shards, threads: Threads, worker: str) -> None:
        """`worker`: this one's name, for explanations."""
        self._shards = shards
        self._worker = worker
        self._threads = threads
        self._tasks: set[asyncio.Task[None]] = set()

    def methods(self) -> Mapping[str, Serve]:
        count = _Method(_decoder(CountRequest), _reads_no_row, _one_each, _each(answers.count))
        query = _Method(_decoder(QueryRequest), _never, batches, answers.query_together)
        prefetch = _Method(_decoder(PrefetchRequest), _always, _one_each, _each(lambda _reading, _request: b""))
        methods = {
            "count": count,
            "get": _alone(GetRequest, answers.get),
            "query": query,
            "prefetch": prefetch,
            "search": _alone(SearchRequest, searching.search),
            "search.nearest": _alone(NearestRequest, searching.nearest_step),
            "search.frequencies": _alone(FrequenciesRequest, searching.frequencies_step),
            "search.ordered": _alone(OrderedRequest, searching.ordered_step),
            "search.tally": _alone(TallyRequest, searching.tally_step),
        }
        return {name: functools.partial(self._serve, method) for name, method in methods.items()}

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _serve(self, method: _Method, calls: Sequence[Call]) -> None:
        by_shard: dict[Shard, list[_Asked]] = {}
        for call in calls:
            if len(call.payload) > DECODED_ON_LOOP_MAX:
                self._start(self._serve_large(method, call))
                continue
            try:
                request = method.decode(call.payload)
            except InvalidArgument as error:
                call.fail(error)
            else:
                by_shard.setdefault(request.shard, []).append(_Asked(call, request))
        for shard, asked in by_shard.items():
            self._start(self._answer(method, shard, asked))

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)  # the loop holds tasks weakly
        task.add_done_callback(self._tasks.discard)

    async def _serve_large(self, method: _Method, call: Call) -> None:
        try:
            request = await self._threads.run(method.decode, call.payload)
        except InvalidArgument as error:
            call.fail(error)
        else:
            await self._answer(method, request.shard, [_Asked(call, request)])

    async def _answer(self, method: _Method, shard: Shard, asked: Sequence[_Asked]) -> None:
        telemetry.request_id.set(asked[0].call.request_id)  # the others' are in nobody's way
        began_s = time.perf_counter()
        try:
            snapshot = await self._shards.snapshot(shard)
        except BaseException as error:
            _fail(asked, error)
            if not isinstance(error, Exception):
                raise
            return
        reading = Reading(snapshot, self._worker, time.perf_counter() - began_s)
        heavy: list[_Asked] = []
        for one in asked:
            if method.is_light(one.request):
                _hand_over([one], _perform(method.work, reading, [one]), None)
            else:
                heavy.append(one)
        for numbers in method.jobs([one.request for one in heavy]):
            job = [heavy[number] for number in numbers]
            self._threads.begin(functools.partial(_hand_over, job), _perform, method.work, reading, job)


class _Outcome(NamedTuple):
    """What becomes of a call."""

    call: Call
    answer: bytes
    error: Exception | None = None


def _perform(work: Work, reading: Reading, asked: Sequence[_Asked]) -> list[_Outcome]:
    """Answers to the calls that somebody still waits for. What fails together is tried alone: one may be at fault."""
    asked = [one for one in asked if not one.call.done]
    if not asked:
        return []
    try:
        found = work(reading, [one.request for one in asked])
    except Exception as error:
        if len(asked) == 1:
            return [_Outcome(asked[0].call, b"", error)]
        return [outcome for one in asked for outcome in _perform(work, reading, [one])]
    return [_Outcome(one.call, answer) for one, answer in zip(asked, found, strict=True)]


def _hand_over(asked: Sequence[_Asked], outcomes: list[_Outcome] | None, error: BaseException | None) -> None:
    if error is not None:
        _fail(asked, error)
    for outcome in outcomes or ():
        if outcome.error is None:
            outcome.call.answer(outcome.answer)
        else:
            outcome.call.fail(outcome.error)


def _fail(asked: Sequence[_Asked], error: BaseException) -> None:
    for one in asked:
        one.call.fail(error)


def _decoder(of: type[Request]) -> Callable[[memoryview], Request]:
    decoder = msgspec.msgpack.Decoder(of)

    def decode(payload: memoryview) -> Request:
        try:
            return decoder.decode(payload)
        except msgspec.MsgspecError as error:
            raise InvalidArgument(f"not a {of.__name__}: {error}") from error

    return decode


def _alone(of: type[Request], answer: Callable[[Reading, Any], bytes]) -> _Method:
    """Each request is a job of its own."""
    return _Method(_decoder(of), _never, _one_each, _each(answer))


def _each(answer: Callable[[Reading, Any], bytes]) -> Work:
    return lambda reading, requests: [answer(reading, request) for request in requests]


def _one_each(requests: Sequence[Any]) -> Sequence[Sequence[int]]:
    return [[number] for number in range(len(requests))]


def _reads_no_row(request: CountRequest) -> bool:
    """A thread would cost more than the answer."""
    return request.selection == EVERYTHING


def _always(_request: Any) -> bool:
    return True


def _never(_request: Any) -> bool:
    return False
