"""all-MiniLM-L6-v2: token ids in, one vector of length 1 for each text out.

Texts are laid end to end, so nothing is padded: every step but attention looks at one token at a time and takes the
whole pack [tokens, width] at once. Attention looks at one text at a time; texts of equal length that follow each other
are taken together.

Results are those of the reference model to about 2e-6 in cosine. All of that is the GELU, whose erf is replaced by the
tanh that numpy computes eight or sixteen at a time. What differs less is left to the processor: BLAS has kernels that
round a row of a product by its place, so that a text's last bits may depend on the texts it is packed with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final, NamedTuple

import numpy as np

from embedder.weights import HEAD_WIDTH, HEADS, INNER_WIDTH, WIDTH, Layer, Linear, Norm, Weights
from shared.vectors.arrays import Float32Matrix, TokenIds, Vectors

CHUNK_TOKENS: Final = 256
"""Tokens that go through a feed-forward network at once: its inner states (1.5 MB) are still in the processor's cache
when they are multiplied by the second matrix.
"""

NORM_EPSILON: Final = np.float32(1e-12)
_TANH_1: Final = np.float32(0.7978845608)  # sqrt(2 / pi)
_TANH_3: Final = np.float32(0.7978845608 * 0.044715)


class _Run(NamedTuple):
    """`texts` of `length` tokens each, from token `start` on."""

    start: int
    texts: int
    length: int

    @property
    def tokens(self) -> slice:
        return slice(self.start, self.start + self.texts * self.length)


class Model:
    """The encoder, mean pooling and normalisation behind it. Without state of its own: threads share it."""

    def __init__(self, weights: Weights) -> None:
        self._weights = weights

    def embed(self, texts: Sequence[TokenIds]) -> Vectors:
        """A vector of length 1 per text, [texts, WIDTH]. Each text has 1 to TOKENS_MAX token ids; it is faster when
        texts of equal length follow each other.
        """
        weights = self._weights
        lengths = [len(text) for text in texts]
        positions = np.concatenate([weights.position_embeddings[:length] for length in lengths])
        tokens = _normalised(weights.token_embeddings[np.concatenate(texts)] + positions, weights.embedding_norm)
        runs = list(_runs(lengths))
        for layer in weights.layers:
            tokens = _layer(tokens, layer, runs)
        return _pooled(tokens, lengths)


def _runs(lengths: Sequence[int]) -> Iterator[_Run]:
    start = 0
    for length, equal in groupby(lengths):
        run = _Run(start, sum(1 for _ in equal), length)
        yield run
        start += run.texts * length


def _layer(tokens: Float32Matrix, layer: Layer, runs: Sequence[_Run]) -> Float32Matrix:
    attended = _linear(_attention(_linear(tokens, layer.qkv), runs), layer.attention_output)
    attended += tokens
    tokens = _normalised(attended, layer.attention_norm)
    inner = np.empty((min(CHUNK_TOKENS, len(tokens)), INNER_WIDTH), np.float32)
    scratch = np.empty_like(inner)
    for start in range(0, len(tokens), CHUNK_TOKENS):
        chunk = tokens[start : start + CHUNK_TOKENS]
        wide = np.matmul(chunk, layer.intermediate.matrix, out=inner[: len(chunk)])
        wide += layer.intermediate.bias
        _gelu_doubled(wide, scratch[: len(chunk)])
        chunk += _linear(wide, layer.output)
    return _normalised(tokens, layer.output_norm)


def _linear(tokens: Float32Matrix, linear: Linear) -> Float32Matrix:
    result = tokens @ linear.matrix
    result += linear.bias
    return result


def _attention(qkv: Float32Matrix, runs: Sequence[_Run]) -> Float32Matrix:
    """Scaled dot-product attention of each token to the tokens of its own text, head by head: [tokens, WIDTH]. `qkv`
    has queries (scaled), keys and values side by side: [tokens, 3 * WIDTH].
    """
    result = np.empty((len(qkv), WIDTH), np.float32)
    for run in runs:
        by_head = qkv[run.tokens].reshape(run.texts, run.length, 3, HEADS, HEAD_WIDTH)
        queries, keys, values = by_head.transpose(2, 0, 3, 1, 4)  # each [text, head, token, HEAD_WIDTH]
        scores = queries @ keys.swapaxes(2, 3)
        scores -= scores.max(axis=-1, keepdims=True)
        np.exp(scores, out=scores)
        mean = scores @ values
        mean /= scores.sum(axis=-1, keepdims=True)
        result[run.tokens] = mean.swapaxes(1, 2).reshape(-1, WIDTH)
    return result


def _gelu_doubled(x: Float32Matrix, scratch: Float32Matrix) -> None:
    """Replaces x by twice its GELU: x * (1 + tanh(a x + b x^3)). The factor of a half is in the weights that come next.
    `scratch` has the shape of x.
    """
    np.multiply(x, x, out=scratch)
    scratch *= _TANH_3
    scratch += _TANH_1
    scratch *= x
    np.tanh(scratch, out=scratch)
    scratch += np.float32(1.0)
    x *= scratch


def _normalised(x: Float32Matrix, norm: Norm) -> Float32Matrix:
    """x, layer-normalised in place, row by row."""
    x -= x.mean(axis=1, keepdims=True)
    variance = np.einsum("ij,ij->i", x, x)[:, np.newaxis] / np.float32(WIDTH)
    x /= np.sqrt(variance + NORM_EPSILON)
    x *= norm.scale
    x += norm.bias
    return x


def _pooled(tokens: Float32Matrix, lengths: Sequence[int]) -> Vectors:
    """Each text's mean over its tokens' states, scaled to length 1: [texts, WIDTH]."""
    starts = np.cumsum([0, *lengths[:-1]])
    means = np.add.reduceat(tokens, starts, axis=0)
    means /= np.asarray(lengths, np.float32)[:, np.newaxis]
    means /= np.sqrt(np.einsum("ij,ij->i", means, means))[:, np.newaxis]
    return means
