"""Which function a collection selects, and that it can do no more than select."""

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from frontend.embed.embedders import TEXTS_MAX, Embedders
from frontend.http.errors import EmbeddingFailed
from shared.catalog import Collection
from shared.errors import DeadlineExceeded, InvalidArgument
from shared.vectors.arrays import Vectors
from tests.frontend.embed.fakes import Lengths
from tests.frontend.fakes import new_collection


def collection_of(function: Any) -> Collection:
    return new_collection(configuration={"hnsw": {}, "spann": None, "embedding_function": function})


def known(name: str, **config: Any) -> dict[str, Any]:
    return {"type": "known", "name": name, "config": config}


@pytest.fixture
def embedders() -> Embedders:
    return Embedders({"default": Lengths("all-MiniLM-L6-v2"), "far": Lengths("large")}, "default", timeout_s=10)


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (None, "default"),
        ({"type": "legacy"}, "default"),
        ({"type": "unknown"}, "default"),
        (known("default"), "default"),
        (known("far"), "far"),
        (known("far", model_name="Large", api_base="https://elsewhere.example", module="os"), "far"),
        (known("default", model_name="sentence-transformers/all-MiniLM-L6-v2"), "default"),
        (known("far", model_name=7), "far"),
    ],
)
def test_a_collection_selects_by_name(embedders: Embedders, function: Any, name: str) -> None:
    assert embedders.chosen(function) == name


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (known("os.system"), "'os.system' is not registered with this server, which has: default, far"),
        (known("DEFAULT"), "is not registered"),
        (known("default", model_name="all-mpnet-base-v2"), "uses the model 'all-mpnet-base-v2'"),
    ],
)
async def test_what_is_not_registered_is_refused(embedders: Embedders, function: Any, problem: str) -> None:
    with pytest.raises(InvalidArgument, match=problem):
        await embedders.embed(collection_of(function), ["a"])


async def test_without_a_default_a_collection_has_to_name_one() -> None:
    embedders = Embedders({"far": Lengths()}, None, timeout_s=10)
    with pytest.raises(InvalidArgument, match="names no embedding function and the server has no default"):
        await embedders.embed(collection_of(None), ["a"])
    assert (await embedders.embed(collection_of(known("far")), ["abc"])).tolist() == [[3, 1]]


async def test_no_texts_ask_nobody() -> None:
    lengths = Lengths()
    assert len(await Embedders({"far": lengths}, "far", timeout_s=10).embed(collection_of(None), [])) == 0
    assert not lengths.asked


@pytest.mark.parametrize(
    "vectors", [[[1.0, 2.0]], [[1.0, np.nan], [1.0, 2.0]], [[1.0, np.inf], [1.0, 2.0]], [[], []], [1.0, 2.0]]
)
async def test_vectors_that_cannot_be_stored_are_a_failure(vectors: Any) -> None:
    lengths = Lengths()
    lengths.vectors = np.array(vectors, np.float32)
    with pytest.raises(EmbeddingFailed):
        await Embedders({"far": lengths}, "far", timeout_s=10).embed(collection_of(None), ["a", "b"])


async def test_it_takes_no_longer_than_allowed() -> None:
    class Stuck(Lengths):
        async def embed(self, texts: Sequence[str]) -> Vectors:
            await asyncio.Event().wait()
            raise AssertionError

    with pytest.raises(DeadlineExceeded, match="1 texts were not embedded"):
        await Embedders({"far": Stuck()}, "far", timeout_s=0.01).embed(collection_of(None), ["a"])


async def test_more_texts_than_a_request_may_have_reach_no_function() -> None:
    far = Lengths("large")
    embedders = Embedders({"far": far}, "far", timeout_s=10)
    with pytest.raises(InvalidArgument, match="At most 100000 texts"):
        await embedders.embed(collection_of(None), ["a"] * (TEXTS_MAX + 1))
    assert not far.asked
