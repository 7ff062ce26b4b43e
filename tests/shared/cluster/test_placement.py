from collections import Counter

import numpy as np

from shared.cluster.placement import rank, shard_of


def test_shards_of_known_ids_never_change() -> None:
    assert shard_of(["a", "b", "über", "", "x" * 500], 7).tolist() == [1, 4, 2, 4, 3]


def test_one_shard_takes_everything() -> None:
    assert shard_of(["a", "b"], 1).tolist() == [0, 0]


def test_ids_spread_evenly_over_shards() -> None:
    counts = np.bincount(shard_of([f"id-{i}" for i in range(20_000)], 8), minlength=8)
    assert counts.min() > 2_200
    assert counts.max() < 2_800


def test_rank_is_a_permutation_that_does_not_depend_on_the_order_given() -> None:
    workers = [f"worker-{i}" for i in range(9)]
    assert rank("c/0", workers) == rank("c/0", workers[::-1])
    assert sorted(rank("c/0", workers)) == workers


def test_a_worker_that_leaves_moves_only_its_own_shards() -> None:
    workers = [f"worker-{i}" for i in range(10)]
    keys = [f"collection-{i}/0" for i in range(2_000)]
    before = {key: rank(key, workers) for key in keys}
    for key in keys:
        assert rank(key, workers[:-1]) == [worker for worker in before[key] if worker != workers[-1]]
    first = Counter(order[0] for order in before.values())
    assert max(first.values()) < 260
    assert min(first.values()) > 140
