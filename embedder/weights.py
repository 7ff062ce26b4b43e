"""The weights of all-MiniLM-L6-v2 (a BERT encoder of six layers), from a safetensors file into the layout in which they
are multiplied.

A matrix of the file is [outputs, inputs]. Here it is transposed once, so that tokens [n, inputs] are multiplied from
the left. What would be a step for every token is done to the weights instead: the queries' matrix carries the
attention's factor of 1/sqrt(HEAD_WIDTH), the matrices of keys and values stand beside it in one matrix, the embedding
of token type 0 is added to the position embeddings, and the GELU's factor of a half is in the matrix behind it.
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
"""Dimension of a token's state, and of a text's vector."""
INNER_WIDTH: Final = 1536
"""Dimension between the two matrices of a feed-forward network."""
HEADS: Final = 12
LAYERS: Final = 6
HEAD_WIDTH: Final = WIDTH // HEADS
TOKENS_MAX: Final = 256
"""Tokens of a text that count, [CLS] and [SEP] included. The model was trained with so many."""


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer: `x @ matrix + bias`, with x [n, inputs], matrix [inputs, outputs] and bias [outputs]."""

    matrix: Float32Matrix
    bias: Float32Array


@dataclass(frozen=True, slots=True)
class Norm:
    """The scale and the bias, [WIDTH] each, of a layer normalisation."""

    scale: Float32Array
    bias: Float32Array


@dataclass(frozen=True, slots=True)
class Layer:
    """A layer of the encoder."""

    qkv: Linear
    """Queries, keys and values side by side: [WIDTH, 3 * WIDTH]."""
    attention_output: Linear
    attention_norm: Norm
    intermediate: Linear
    """The first matrix of the feed-forward network: [WIDTH, INNER_WIDTH]."""
    output: Linear
    """The second one: [INNER_WIDTH, WIDTH]."""
    output_norm: Norm


@dataclass(frozen=True, slots=True)
class Weights:
    """The whole model. `token_embeddings` is [vocabulary, WIDTH], `position_embeddings` [TOKENS_MAX, WIDTH]."""

    token_embeddings: Float32Matrix
    position_embeddings: Float32Matrix
    embedding_norm: Norm
    layers: tuple[Layer, ...]


def read_weights(path: Path) -> Weights:
    """The weights in a safetensors file. Raises Corrupt when it is not this model's."""
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
        attention = f"{name}.attention.self"
        query, key, value = (linear(f"{attention}.{kind}", WIDTH, WIDTH) for kind in ("query", "key", "value"))
        output = linear(f"{name}.output.dense", INNER_WIDTH, WIDTH)
        return Layer(
            qkv=_side_by_side([_scaled(query, HEAD_WIDTH**-0.5), key, value]),
            attention_output=linear(f"{name}.attention.output.dense", WIDTH, WIDTH),
            attention_norm=norm(f"{name}.attention.output"),
            intermediate=linear(f"{name}.intermediate.dense", WIDTH, INNER_WIDTH),
            output=Linear(output.matrix * np.float32(0.5), output.bias),
            output_norm=norm(f"{name}.output"),
        )

    positions = tensor("embeddings.position_embeddings.weight", WIDTH)[:TOKENS_MAX]
    return Weights(
        token_embeddings=tensor("embeddings.word_embeddings.weight", WIDTH),
        position_embeddings=positions + tensor("embeddings.token_type_embeddings.weight", WIDTH)[0],
        embedding_norm=norm("embeddings"),
        layers=tuple(map(layer, range(LAYERS))),
    )


def _scaled(linear: Linear, factor: float) -> Linear:
    return Linear(linear.matrix * np.float32(factor), linear.bias * np.float32(factor))


def _side_by_side(layers: list[Linear]) -> Linear:
    """A linear layer whose outputs are those of all layers."""
    matrix = np.concatenate([layer.matrix for layer in layers], axis=1)
    return Linear(matrix, np.concatenate([layer.bias for layer in layers]))
