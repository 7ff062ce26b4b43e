"""Rich random collections and searches from a seed, over alphabets so small that records meet each other."""

from __future__ import annotations

from random import Random
from typing import Any

from tests.model import strategies
from tests.model.reference import Row
from tests.shared.segment import scalar

Json = dict[str, Any]
FIELDS = ("n", "s", "flag", "tags", "any")
NUMBERS = (-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 3.0, 60.0, 1e38, -1e39)
COMPONENTS = (-2.0, -0.5, 0.0, 0.25, 1.0, 3.0)
"""Exact in binary, so that no order of additions changes a distance."""
SPARSE_KEYS = ("sv", "bm")


class Generator:
    """`ids`: how many different ones there are."""

    def __init__(self, seed: int, ids: int = 30) -> None:
        self.random = Random(seed)
        self._ids = [f"id{number}" for number in range(ids)]

    def rows(self, count: int, *, patch: bool = False, optional_vectors: bool = False) -> list[Row]:
        return [
            Row(
                id=id_,
                embedding=None if optional_vectors and self.random.random() < 0.5 else tuple(self.vector()),
                document=self.random.choice((None, *strategies.DOCUMENTS)),
                uri=self.random.choice((None, None, "file:///a")),
                metadata=self.metadata(patch),
            )
            for id_ in self.random.choices(self._ids, k=count)
        ]

    def some_ids(self, count: int) -> list[str]:
        return self.random.sample(self._ids, count)

    def vector(self) -> list[float]:
        return [self.random.choice(COMPONENTS) for _ in range(strategies.DIMENSION)]

    def metadata(self, patch: bool) -> Json | None:
        metadata: Json = {}
        for key in (*FIELDS, "chroma:note"):
            if self.random.random() < 0.5:
                metadata[key] = None if patch and self.random.random() < 0.2 else self.value(key)
        for key in SPARSE_KEYS:
            if self.random.random() < 0.7:
                metadata[key] = None if patch and self.random.random() < 0.2 else scalar.stored(self.sparse())
        return metadata or None

    def value(self, key: str) -> Any:
        choose = self.random.choice
        kinds: dict[str, Any] = {
            "n": (-1, 0, 1, 2, 0.5, 1.0, 2**60 + 1, float(2**60)),
            "s": ("", "a", "b", "ü", "1"),
            "flag": (True, False),
        }
        if key in kinds:
            return choose(kinds[key])
        if key == "tags":
            return choose((["a"], ["a", "b"], ["b", "b"], [1, 2], [True], [0.5, 1]))
        return choose((1, 1.0, True, "1", ["1"], [1], 2.5))

    def sparse(self) -> scalar.Sparse:
        indices = self.random.sample((0, 1, 2, 3, 4, 5, 2**32 - 1), self.random.randrange(5))
        return {index: self.random.choice((-1.0, 0.0, 0.5, 1.0, 2.0)) for index in indices}

    # ---- searches

    def search(self) -> Json:
        random = self.random
        payload: Json = {}
        if random.random() < 0.8:
            payload["rank"] = self.rank(3)
            if random.random() < 0.3:
                payload["group_by"] = self.group_by()
        if random.random() < 0.4:
            payload["filter"] = self.where()
        if random.random() < 0.4:
            payload["limit"] = {"offset": random.randrange(4), "limit": random.choice((None, 0, 3, 8))}
        if random.random() < 0.25:
            payload["order_by"] = [
                {"key": random.choice((*FIELDS, "none")), "direction": random.choice(("asc", "desc"))}
                for _ in range(random.randint(1, 2))
            ]
        return payload

    def rank(self, depth: int) -> Json:
        random = self.random
        if depth == 0 or random.random() < 0.35:
            return self.knn() if random.random() < 0.8 else {"$val": random.choice(NUMBERS)}
        kind = random.randrange(4)
        if kind == 0:
            return {random.choice(("$abs", "$exp", "$log")): self.rank(depth - 1)}
        if kind == 1:
            pair = [self.rank(depth - 1), self.rank(depth - 1)]
            operands = {"left": pair[0], "right": pair[1]} if random.random() < 0.5 else pair
            return {random.choice(("$sub", "$div")): operands}
        children = [self.rank(depth - 1) for _ in range(random.randrange(4))]
        return {random.choice(("$sum", "$mul", "$max", "$min")): children}

    def knn(self) -> Json:
        random = self.random
        knn: Json = {"query": self.vector()}
        if random.random() < 0.5:
            knn = {"query": scalar.stored(self.sparse()), "key": random.choice(SPARSE_KEYS)}
        if random.random() < 0.7:
            knn["limit"] = random.randrange(25)
        if random.random() < 0.5:
            knn["default"] = random.choice((None, *NUMBERS))
        if random.random() < 0.3:
            knn["return_rank"] = random.random() < 0.7
        if random.random() < 0.15:
            knn["max_distance"] = random.choice((None, -0.5, 0.5, 2.0, 9.0))
        return {"$knn": knn}

    def group_by(self) -> Json:
        random = self.random
        aggregate = {
            "keys": random.choices((*FIELDS, "#score", "none"), k=random.randint(1, 2)),
            "k": random.randint(1, 3),
        }
        keys = random.choices((*FIELDS, "none"), k=random.randint(1, 2))
        return {"keys": keys, "aggregate": {random.choice(("$min_k", "$max_k")): aggregate}}

    def where(self) -> Json | None:
        random = self.random
        leaves: list[Json] = [
            {},
            {"n": {random.choice(("$gt", "$lte")): random.choice((0, 0.5, 1))}},
            {"s": {"$ne": random.choice("ab")}},
            {"flag": True},
            {"any": random.choice((1, True, "1"))},
            {"tags": {"$contains": random.choice(("a", 1))}},
            {"#document": {random.choice(("$contains", "$not_contains")): "a"}},
            {"#document": {"$regex": random.choice(strategies.PATTERNS)}},
            {"#id": {random.choice(("$in", "$nin")): self.some_ids(8)}},
        ]
        if random.random() < 0.3:
            return {random.choice(("$and", "$or")): random.sample(leaves[1:], random.randint(0, 3))}
        return random.choice(leaves)
