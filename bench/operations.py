"""Operations on a filled collection: what is sent, how the answers are checked, and what one measurement gives."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import orjson

from bench import filters, load
from bench.data import Dataset
from bench.filters import Family, Filter
from bench.servers import Collection

NEIGHBOURS: Final = 10
MANY_NEIGHBOURS: Final = 100
PAGE: Final = 100
EXPORT_PAGE: Final = 10_000
CLIENTS: Final = (1, 16)
CHECKED_PLAIN: Final = 1500
CHECKED_FILTERED: Final = 48

Check = Callable[[int, Any], float]
"""From the number of a request and its parsed answer: the part of the right ids that are in it."""


class WrongAnswerError(Exception):
    """A server answered what cannot be right."""


@dataclass(frozen=True)
class Operation:
    """`action` is the last part of the path. The first `checked` answers are checked. `once`: each body one time only,
    because there are few or they change something.
    """

    line: str
    action: str
    bodies: Sequence[bytes]
    method: str = "POST"
    clients: Sequence[int] = CLIENTS
    once: bool = False
    checked: int = CHECKED_FILTERED
    check: Check | None = None
    detail: str = ""

    def requests(self, collection: Collection) -> list[load.Request]:
        return [load.Request(self.method, collection.path(self.action), body) for body in self.bodies]


@dataclass(frozen=True)
class Sample:
    """The figures of one run with one number of clients. CPU over all processes of the server, per request."""

    p50_ms: float
    p99_ms: float
    per_s: float
    cpu_ms: float


def measure(collection: Collection, operation: Operation, clients: int, seconds: float, first: int) -> Sample:
    server = collection.server
    span_s = None if operation.once else seconds
    work = load.Work(server.port, operation.requests(collection), clients, span_s, first)
    cpu_before_s = server.cpu_s()
    done = load.run(work)
    cpu_s = server.cpu_s() - cpu_before_s
    return sample(done, cpu_s)


def sample(done: load.Done, cpu_s: float) -> Sample:
    return Sample(done.latency_ms(0.5), done.latency_ms(0.99), done.per_s, cpu_s / done.count * 1000)


def recall(collection: Collection, operation: Operation) -> float | None:
    """The part of the right ids in the checked answers; warms both sides up, too."""
    requests = operation.requests(collection)[: operation.checked]
    done = load.run(load.Work(collection.server.port, requests, min(16, len(requests)), keep=len(requests)))
    if operation.check is None:
        return None
    found = [operation.check(number, orjson.loads(answer)) for number, answer in done.answers.items()]
    return float(np.mean(found))


def plain_queries(dataset: Dataset) -> list[Operation]:
    return [plain_query(dataset), _ten_at_once(dataset), _many_neighbours(dataset)]


def plain_query(dataset: Dataset, clients: Sequence[int] = CLIENTS) -> Operation:
    truth = dataset.all_nearest(NEIGHBOURS)
    bodies = [_query([query]) for query in dataset.queries]
    return Operation(
        "query k=10", "query", bodies, clients=clients, checked=CHECKED_PLAIN, check=partial(_check_queries, truth, 1)
    )


def _ten_at_once(dataset: Dataset) -> Operation:
    truth = dataset.all_nearest(NEIGHBOURS, 10 * CHECKED_FILTERED)
    groups = [dataset.queries[at : at + 10] for at in range(0, len(dataset.queries) - 9, 10)]
    bodies = [_query(group) for group in groups]
    return Operation("10 vectors in one query", "query", bodies, check=partial(_check_queries, truth, 10))


def _many_neighbours(dataset: Dataset) -> Operation:
    truth = dataset.all_nearest(MANY_NEIGHBOURS, CHECKED_FILTERED)
    bodies = [_query([query], MANY_NEIGHBOURS) for query in dataset.queries]
    return Operation("query k=100", "query", bodies, check=partial(_check_queries, truth, 1))


def filtered_query(dataset: Dataset, family: Family) -> Operation:
    """Every body another vector; the filters go round, so that the pairs repeat as late as can be."""
    pairs = list(zip(dataset.queries, itertools.cycle(family.filters), strict=False))
    bodies = [_query([query], **chosen) for query, chosen in pairs]
    truth = [
        dataset.nearest(query, NEIGHBOURS, filters.mask(dataset, chosen)) for query, chosen in pairs[:CHECKED_FILTERED]
    ]
    return Operation(
        family.name, "query", bodies, check=partial(_check_queries, truth, 1), detail=f"{family.share:.2%} match"
    )


def gets(dataset: Dataset) -> list[Operation]:
    return [get_by_ids(dataset), _filtered_get(dataset), _deep_page(dataset), count(dataset), _everything(dataset)]


def get_by_ids(dataset: Dataset) -> Operation:
    random = np.random.default_rng(3)
    wanted = [[dataset.ids[row] for row in random.integers(0, len(dataset), 10)] for _ in range(1500)]

    def check(number: int, answer: Any) -> float:
        return _all(set(answer["ids"]) == set(wanted[number]), "get by ids", answer)

    return Operation("get by 10 ids", "get", [orjson.dumps({"ids": ids}) for ids in wanted], check=check)


def _filtered_get(dataset: Dataset) -> Operation:
    chosen = filters.few_wheres(dataset)[0]
    each = [chosen.filters[number % len(chosen.filters)] for number in range(300)]
    masks = [filters.mask(dataset, one) for one in each[:CHECKED_FILTERED]]

    def check(number: int, answer: Any) -> float:
        rows = [dataset.row_of[record_id] for record_id in answer["ids"]]
        right = len(rows) == min(PAGE, masks[number].sum()) and masks[number][rows].all()
        return _all(bool(right), "filtered get", answer)

    bodies = [orjson.dumps({**one, "limit": PAGE}) for one in each]
    detail = f"{chosen.share:.2%} match, the first {PAGE} of them"
    return Operation("filtered get", "get", bodies, check=check, detail=detail)


def _deep_page(dataset: Dataset) -> Operation:
    offsets = np.random.default_rng(8).integers(len(dataset) * 2 // 3, len(dataset) - PAGE, 300)
    bodies = [orjson.dumps({"limit": PAGE, "offset": int(offset)}) for offset in offsets]

    def check(_number: int, answer: Any) -> float:
        return _all(len(set(answer["ids"])) == PAGE, "page", answer)

    detail = f"{PAGE} rows, in the last third"
    return Operation("get at a deep offset", "get", bodies, check=check, detail=detail)


def _everything(dataset: Dataset) -> Operation:
    """In pages: of all rows at once Chroma says that they are too many SQL variables."""
    starts = range(0, len(dataset), EXPORT_PAGE)
    include = ["embeddings", "documents", "metadatas"]
    bodies = [orjson.dumps({"include": include, "limit": EXPORT_PAGE, "offset": start}) for start in starts]

    def check(_number: int, answer: Any) -> float:
        right = len(set(answer["ids"])) == len(answer["embeddings"]) == min(EXPORT_PAGE, len(dataset))
        return _all(right, "get of everything", answer)

    line = "get of everything with embeddings"
    detail = f"pages of {EXPORT_PAGE:,}"
    return Operation(line, "get", bodies, clients=(1,), once=True, checked=1, check=check, detail=detail)


def count(dataset: Dataset) -> Operation:
    def check(_number: int, answer: Any) -> float:
        return _all(answer == len(dataset), "count", {"ids": [answer]})

    return Operation("count", "count", [b""] * CHECKED_FILTERED, method="GET", check=check)


def upserts(dataset: Dataset, rows: int, seed: int) -> Operation:
    """Rows that are there already, with the same content: what the collection holds does not change."""
    chosen = np.random.default_rng(seed).permutation(len(dataset))[:rows]
    return Operation("single-row upsert", "upsert", [dataset.write_body([int(row)]) for row in chosen], once=True)


def common(dataset: Dataset) -> list[Operation]:
    """The reads that are measured at every size."""
    return [
        plain_query(dataset),
        *(filtered_query(dataset, family) for family in (*filters.few_wheres(dataset), *filters.few_texts(dataset))),
        get_by_ids(dataset),
        count(dataset),
    ]


def _query(vectors: Iterable[Any], k: int = NEIGHBOURS, **chosen: Filter) -> bytes:
    body = {"query_embeddings": list(vectors), "n_results": k, **chosen}
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _check_queries(truth: Sequence[frozenset[str]], each: int, number: int, answer: Any) -> float:
    """`each`: vectors in one request."""
    wanted = truth[number * each : (number + 1) * each]
    found = sum(len(ids.intersection(got)) for ids, got in zip(wanted, answer["ids"], strict=True))
    return found / max(1, sum(map(len, wanted)))


def _all(right: bool, what: str, answer: Any) -> float:
    if not right:
        raise WrongAnswerError(f"{what}: {len(answer['ids'])} ids, {answer['ids'][:5]} ...")
    return 1.0
