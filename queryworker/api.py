"""The methods that frontends call (`shared.rpc.messages`): make the shard current, then work in a thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

import msgspec

from queryworker import answers, searching
from queryworker.shards import Shards
from queryworker.threads import Threads
from queryworker.view import Snapshot
from shared.errors import InvalidArgument
from shared.rpc.messages import CountRequest, GetRequest, QueryRequest, Selection, Shard
from shared.rpc.search_messages import (
    FrequenciesRequest,
    NearestRequest,
    OrderedRequest,
    SearchRequest,
    TallyRequest,
)
from shared.rpc.server import Handler

DECODED_ON_LOOP_MAX: Final = 64 * 1024
"""Longer requests are decoded in a thread."""

EVERYTHING: Final = Selection()


class _OfShard(Protocol):
    @property
    def shard(self) -> Shard: ...


Request = TypeVar("Request", bound=_OfShard)


class Api:
    """Handlers for `RpcServer`."""

    def __init__(self, shards: Shards, threads: Threads) -> None:
        self._shards = shards
        self._threads = threads

    def handlers(self) -> Mapping[str, Handler]:
        return {
            "count": self._handler(CountRequest, answers.count, lambda request: request.selection == EVERYTHING),
            "get": self._handler(GetRequest, answers.get),
            "query": self._handler(QueryRequest, answers.query),
            "search": self._handler(SearchRequest, searching.search),
            "search.nearest": self._handler(NearestRequest, searching.nearest_step),
            "search.frequencies": self._handler(FrequenciesRequest, searching.frequencies_step),
            "search.ordered": self._handler(OrderedRequest, searching.ordered_step),
            "search.tally": self._handler(TallyRequest, searching.tally_step),
        }

    def _handler(
        self,
        of: type[Request],
        run: Callable[[Snapshot, Request], bytes],
        is_light: Callable[[Request], bool] = lambda _: False,
    ) -> Handler:
        """A request that `is_light` reads no file and no row: a thread would cost more than it."""
        decoder = msgspec.msgpack.Decoder(of)

        def decode(payload: memoryview) -> Request:
            try:
                return decoder.decode(payload)
            except msgspec.MsgspecError as error:
                raise InvalidArgument(f"not a {of.__name__}: {error}") from error

        async def handle(payload: memoryview) -> bytes:
            if len(payload) <= DECODED_ON_LOOP_MAX:
                request = decode(payload)
            else:
                request = await self._threads.run(decode, payload)
            snapshot = await self._shards.snapshot(request.shard)
            if is_light(request):
                return run(snapshot, request)
            return await self._threads.run(run, snapshot, request)

        return handle
