"""The weights of all-MiniLM-L6-v2, from a safetensors file into the layout in which they are multiplied.

A matrix of the file is [outputs, inputs]. Here it is transposed once, so that tokens [n, inputs] are multiplied from
the left. What would be a step for every token is done to the weights instead: queries carry the attention's factor of
1/sqrt(HEAD_WIDTH), keys and values stand beside them in one matrix, token type 0 is part of the places, and the GELU's
half is in the matrix behind it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from shared.errors import Corrupt
from shared.vectors.arrays import AnyArray, Float32Array, Float32Matrix

WIDTH: Final = 384
INNER_WIDTH: Final = 1536
HEADS: Final = 12
LAYERS: Final = 6
HEAD_WIDTH: Final = WIDTH // HEADS
TOKENS_MAX: Final = 256
"""Tokens of a text that count, the two marks at its ends included. The model was made for so many."""


@dataclass(frozen=True, slots=True)
class Linear:
    """`x @ matrix + bias`."""

    matrix: Float32Matrix
    bias: Float32Array


@dataclass(frozen=True, slots=True)
class Norm:
    """Layer normalisation."""

    scale: Float32Array
    bias: Float32Array


@dataclass(frozen=True, slots=True)
class Layer:
    """One of the encoder's layers. `attend` gives queries, keys and values side by side."""

    attend: Linear
    attended: Linear
    attention_norm: Norm
    widen: Linear
    narrow: Linear
    norm: Norm


@dataclass(frozen=True, slots=True)
class Weights:
    """The whole model. `words` is [vocabulary, WIDTH], `places` [TOKENS_MAX, WIDTH]."""

    words: Float32Matrix
    places: Float32Matrix
    norm: Norm
    layers: tuple[Layer, ...]


def read_weights(path: Path) -> Weights:
    """Raises Corrupt for a file that is not this model's."""
    try:
        tensors = load_file(path)
        return _arranged(tensors)
    except (KeyError, ValueError, SafetensorError) as error:
        raise Corrupt(f"{path} does not hold all-MiniLM-L6-v2: {error}") from error


def _arranged(tensors: Mapping[str, AnyArray]) -> Weights:
    def tensor(name: str, *shape: int) -> AnyArray:
        found = tensors[name]
        if found.shape[-len(shape) :] != shape:
            raise ValueError(f"{name} is {found.shape}, not {shape}")
        return found.astype(np.float32)

    def linear(name: str, inputs: int, outputs: int) -> Linear:
        matrix = tensor(f"{name}.weight", outputs, inputs)
        return Linear(np.ascontiguousarray(matrix.T), tensor(f"{name}.bias", outputs))

    def norm(name: str) -> Norm:
        return Norm(tensor(f"{name}.LayerNorm.weight", WIDTH), tensor(f"{name}.LayerNorm.bias", WIDTH))

    def layer(number: int) -> Layer:
        name = f"encoder.layer.{number}"
        parts = [linear(f"{name}.attention.self.{part}", WIDTH, WIDTH) for part in ("query", "key", "value")]
        narrow = linear(f"{name}.output.dense", INNER_WIDTH, WIDTH)
        return Layer(
            attend=_side_by_side([_scaled(parts[0], HEAD_WIDTH**-0.5), *parts[1:]]),
            attended=linear(f"{name}.attention.output.dense", WIDTH, WIDTH),
            attention_norm=norm(f"{name}.attention.output"),
            widen=linear(f"{name}.intermediate.dense", WIDTH, INNER_WIDTH),
            narrow=Linear(narrow.matrix * np.float32(0.5), narrow.bias),
            norm=norm(f"{name}.output"),
        )

    places = tensor("embeddings.position_embeddings.weight", WIDTH)[:TOKENS_MAX]
    return Weights(
        words=tensor("embeddings.word_embeddings.weight", WIDTH),
        places=places + tensor("embeddings.token_type_embeddings.weight", WIDTH)[0],
        norm=norm("embeddings"),
        layers=tuple(map(layer, range(LAYERS))),
    )


def _scaled(linear: Linear, factor: float) -> Linear:
    return Linear(linear.matrix * np.float32(factor), linear.bias * np.float32(factor))


def _side_by_side(parts: list[Linear]) -> Linear:
    matrix = np.concatenate([part.matrix for part in parts], axis=1)
    return Linear(matrix, np.concatenate([part.bias for part in parts]))
