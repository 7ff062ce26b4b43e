"""Stand-ins for what lies behind the record routes: a log that remembers, workers that hold rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from frontend.admission.admission import Admission
from frontend.admission.known_quotas import KnownQuotas
from frontend.admission.stored_quotas import StoredQuotas
from frontend.collections.configuration import VectorSettings, shown_configuration
from frontend.collections.row_cache import missing
from frontend.collections.schema import default_schema
from frontend.config import FrontendConfig
from frontend.embed.embedders import Embedders
from frontend.read.past import Past
from frontend.request_limits import RequestLimits
from frontend.write.dirty import DirtyShards
from frontend.write.durable import Durable
from frontend.write.group_commit import GroupCommit
from shared.catalog import Collection
from shared.cluster.placement import Layout
from shared.errors import PolychromeError, StaleRead, Unavailable
from shared.history.past_log import Oldest
from shared.log.append import Appended, AppendRequest
from shared.log.batch import decode_batch
from shared.process.clock import SystemClock
from shared.records.answers import encode_get, encode_query, refuse_unknown_ids
from shared.records.columns import Columns
from shared.records.explanation import Explanation
from shared.records.include import Wanted
from shared.rpc.answer_budget import AnswerBudget
from shared.rpc.chunks import Answer, ChunkStream
from shared.rpc.messages import CountRequest, CountResponse, GetRequest, GetResponse, QueryRequest, QueryResponse
from shared.tenancy.quotas import Resolved, TenantRecord

COLLECTION_ID = "0f0e0d0c-0b0a-4908-8706-050403020100"


def new_collection(**changes: Any) -> Collection:
    shards = changes.pop("shards", 1)
    collection = Collection(
        id=COLLECTION_ID,
        name="col",
        tenant="default_tenant",
        database="default_database",
        database_key="k",
        metadata=None,
        configuration=shown_configuration(VectorSettings()),
        schema=default_schema(),
        layout=Layout(0, shards),
        generation=1,
        dimension=None,
        head=1,
        keys=frozenset(),
        pointers=(None,) * shards,
        fixed={"shards": shards},
        written=(0,) * shards,
    )
    return replace(collection, **changes)


class Append:
    """What an append asked for, its payloads decoded."""

    def __init__(self, request: AppendRequest) -> None:
        self.request_id = request.request_id
        self.count = request.count
        self.dimension = request.dimension
        self.generation = request.generation
        self.new_keys = list(request.new_keys)
        self.condition = request.condition
        self.deletes_only = request.deletes_only
        self.parts: dict[int, list[dict[str, Any]]] = {
            shard: [row for entry in entries for row in decode_batch(entry.payload).to_pylist()]
            for shard, entries in request.batches.items()
        }


@dataclass
class FakeLog:
    failures: list[Exception] = field(default_factory=list)
    appends: list[Append] = field(default_factory=list)
    requests: list[AppendRequest] = field(default_factory=list)
    dimension: int | None = None
    positions: list[range] = field(default_factory=lambda: [range(101)])
    """What `readable` says, one after the other; the last one for ever."""
    compacted: list[int] = field(default_factory=lambda: [51])
    """What `compacted_to` says, likewise."""

    async def append(self, request: AppendRequest) -> Appended:
        self.requests.append(request)
        self.appends.append(Append(request))
        if self.failures:
            raise self.failures.pop(0)
        return Appended(1, 1 + request.count)

    async def readable(self, collection_id: str) -> range:
        return self.positions.pop(0) if len(self.positions) > 1 else self.positions[0]

    async def compacted_to(self, collection_id: str, layout: Layout) -> int:
        if self.failures:
            raise self.failures.pop(0)
        return self.compacted.pop(0) if len(self.compacted) > 1 else self.compacted[0]

    async def fix_dimension(self, collection_id: str, dimension: int) -> int:
        if self.failures:
            raise self.failures.pop(0)
        if self.dimension is None:
            self.dimension = dimension
        return self.dimension


@dataclass
class FakeJobs:
    bundles: list[list[tuple[str, int]]] = field(default_factory=list)
    failures: list[PolychromeError] = field(default_factory=list)

    async def mark_dirty(self, shards: Iterable[tuple[str, int]]) -> None:
        if self.failures:
            raise self.failures.pop(0)
        self.bundles.append(list(shards))


@dataclass
class FakeRows:
    """`collection` is what the cache holds, `current` what the catalog says, unless it is `away`."""

    collection: Collection
    current: Collection | None = None
    away: bool = False
    refreshed: int = 0
    forgotten: int = 0

    async def resolve(self, tenant: str, database: str, collection_id: str) -> Collection:
        return await self.refresh(self.collection) if self.forgotten else self.collection

    async def refresh(self, collection: Collection) -> Collection:
        self.refreshed += 1
        if self.away:
            raise Unavailable("the catalog is away")
        if self.current is None:
            raise missing(collection.id)
        self.collection = self.current
        return self.current

    def forget(self, collection_id: str) -> None:
        self.forgotten += 1


@dataclass(frozen=True)
class Row:
    inserted: int
    vector: tuple[float, ...]

    @property
    def id(self) -> str:
        return f"id{self.inserted}"


class FakeLongAnswer:
    """An answer in chunks, and the call that it belongs to."""

    def __init__(self) -> None:
        self.granted = 0
        self.ended = False
        self.stream = ChunkStream(self, AnswerBudget(1 << 30), 1 << 30)

    def grant(self, size: int) -> None:
        self.granted += size

    def read_no_more(self) -> None:
        self.ended = True


@dataclass
class FakeWorkers:
    """Rows by shard. Only selections by id are understood. `failures` are raised by the next calls with `as_of`. A row
    was written when it was inserted.
    """

    shards: list[list[Row]]
    dimension: int = 2
    failures: list[PolychromeError] = field(default_factory=list)
    asked: list[Any] = field(default_factory=list)
    long_answers: Callable[[FakeLongAnswer], None] | None = None
    """What happens to answers after their first third; without it the rest comes."""

    def _matching(self, request: Any) -> list[Row]:
        self.asked.append(request)
        if self.failures and (request.shard.as_of is not None or not isinstance(self.failures[0], StaleRead)):
            raise self.failures.pop(0)
        rows = sorted(self.shards[request.shard.shard], key=lambda row: row.inserted)
        ids = request.selection.ids
        return rows if ids is None else [row for row in rows if row.id in ids]

    def _columns(self, rows: list[Row], request: Any, embeddings: bool) -> Columns:
        return Columns(
            ids=[row.id for row in rows] if getattr(request, "ids", True) else [],
            documents=[f"d{row.inserted}" for row in rows] if request.documents else None,
            metadatas=[f'{{"i":{row.inserted}}}' for row in rows] if request.metadatas else None,
            uris=[None for _ in rows] if request.uris else None,
            embeddings=np.array([row.vector for row in rows], dtype="<f4").tobytes() if embeddings else None,
            dimension=self.dimension,
        )

    def _explanation(self, request: Any) -> Explanation | None:
        return Explanation(request.shard.shard, 100, 1, 0, [], {"filter": 0.5}, "w") if request.explain else None

    async def count(self, request: CountRequest) -> CountResponse:
        return CountResponse(len(self._matching(request)), 1)

    async def get(self, request: GetRequest) -> GetResponse:
        rows = self._matching(request)
        if request.inserted is not None:
            asked = set(np.frombuffer(request.inserted, dtype="<i8").tolist())
            rows = [row for row in rows if row.inserted in asked]
        else:
            rows = rows[request.offset :] if request.limit is None else rows[request.offset :][: request.limit]
        inserted = np.array([row.inserted for row in rows], dtype="<i8").tobytes()
        columns = self._columns(rows, request, request.embeddings)
        written = inserted if request.written else None
        as_of = request.shard.as_of
        return GetResponse(inserted, columns, 100 if as_of is None else as_of, self._explanation(request), written)

    async def get_body(self, request: GetRequest) -> bytes:
        found = await self.get(request)
        return encode_get(found.columns, Wanted(request.include or ()))

    async def get_chunks(self, request: GetRequest) -> Answer:
        """The answer in three chunks, or as the test has it, if it shall be in chunks; else as a whole."""
        body = memoryview(await self.get_body(request))
        if not request.in_parts:
            return body
        third = len(body) // 3
        answer = FakeLongAnswer()
        answer.stream.add(body[:third])
        if self.long_answers is not None:
            self.long_answers(answer)
        else:
            answer.stream.add(body[third : 2 * third])
            answer.stream.add(body[2 * third :])
            answer.stream.end()
        return answer.stream

    async def query_body(self, request: QueryRequest) -> Answer:
        found = await self.query(request)
        refuse_unknown_ids(request.selection, request.k, found.columns)
        distances = np.frombuffer(found.distances, "<f4")
        return memoryview(encode_query(found.counts, distances, found.columns, Wanted(request.include or ())))

    async def query(self, request: QueryRequest) -> QueryResponse:
        rows = self._matching(request)
        vectors = np.frombuffer(request.embeddings, dtype="<f4").reshape(request.n_queries, request.dimension)
        hits: list[tuple[float, Row]] = []
        counts = []
        for vector in vectors.tolist():
            found = sorted(
                (sum((a - b) ** 2 for a, b in zip(vector, row.vector, strict=True)), row.inserted, row) for row in rows
            )
            hits += [(distance, row) for distance, _, row in found[: request.k]]
            counts.append(len(found[: request.k]))
        return QueryResponse(
            counts,
            np.array([distance for distance, _ in hits], dtype="<f4").tobytes(),
            np.array([row.inserted for _, row in hits], dtype="<i8").tobytes(),
            self._columns([row for _, row in hits], request, request.include_embeddings),
            position=100,
            explanation=self._explanation(request),
        )


class FakePlans:
    """The records of plans: those of tenants, by name, and a generation that a test draws anew."""

    def __init__(self, tenants: Mapping[str, Resolved] | None = None) -> None:
        self.tenants = dict(tenants or {})
        self.word = ""
        self.away = False
        self.asked: list[str] = []

    async def generation(self) -> str:
        self._require_there()
        return self.word

    async def any(self) -> bool:
        self._require_there()
        return bool(self.tenants)

    async def resolve(self, tenant: str) -> Resolved:
        self._require_there()
        self.asked.append(tenant)
        await asyncio.sleep(0)
        return self.tenants.get(tenant, Resolved({}, {}, TenantRecord(tenant)))

    def _require_there(self) -> None:
        if self.away:
            raise Unavailable("Redis is away")


@dataclass
class FakeAmounts:
    """What tenants or collections have stored: one answer for all."""

    answer: Any = None
    reads: int = 0

    async def read(self, _place: object) -> Any:
        self.reads += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def one_frontend() -> int:
    return 1


def nothing_planned() -> Admission:
    return Admission(KnownQuotas(FakePlans(), RequestLimits()), SystemClock(), one_frontend)


def nothing_beyond_disk() -> Durable:
    """For writes that ask for no other durability class than the disk."""
    nowhere: Any = None
    return Durable(nowhere, nowhere, SystemClock())


class FakePast:
    """The past of a collection: what was kept, and the position that every time is."""

    def __init__(self, oldest: Oldest, position: int) -> None:
        self._oldest = oldest
        self._position = position
        self.times_asked: list[int] = []

    async def oldest(self, _collection: str, _shard: int) -> Oldest:
        return self._oldest

    async def position_at(self, _collection: Collection, time_ms: int, _head: int) -> int:
        self.times_asked.append(time_ms)
        return self._position


def new_config(**settings: Any) -> FrontendConfig:
    return FrontendConfig(redis_url="redis://nowhere", bucket_url="memory://", port=0, access_log="off", **settings)


def new_context(collection: Collection, workers: FakeWorkers | None = None, embedders: Embedders | None = None) -> Any:
    """What `frontend.app` makes its routes of, with one collection. The record routes and those of transactions work;
    the routes that need the catalog do not.
    """
    jobs, log = FakeJobs(), FakeLog(dimension=collection.dimension)
    dirty = DirtyShards(jobs, gather_s=0)  # type: ignore[arg-type]
    rows, past = FakeRows(collection, collection), FakePast(Oldest(7, 1_700_000_000_123), 55)
    return SimpleNamespace(
        config=new_config(),
        clock=SystemClock(),
        kept=past,
        durable=nothing_beyond_disk(),
        past=Past(log, past, past, rows, SystemClock()),  # type: ignore[arg-type]
        catalog=SimpleNamespace(tenants=None, databases=None, collections=None),
        forker=None,
        functions=None,
        key_store=None,
        plan_store=None,
        usage_reader=None,
        erasures=None,
        admission=nothing_planned(),
        stored=StoredQuotas(FakeAmounts(), FakeAmounts(), SystemClock()),
        authenticator=None,
        audit=None,
        metering=None,
        usage=None,
        objects=None,
        log=log,
        jobs=jobs,
        dirty=dirty,
        groups=GroupCommit(log, dirty, nothing_beyond_disk()),  # type: ignore[arg-type]
        rows=rows,
        workers=workers or FakeWorkers([[] for _ in range(collection.shards)]),
        embedders=embedders or Embedders({}, None, timeout_s=10),
    )
