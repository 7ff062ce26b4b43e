"""The method that frontends call (`shared.rpc.embed_messages`)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

from tokenizers import Tokenizer

from embedder.batching import Batcher
from embedder.tokens import token_ids
from embedder.weights import WIDTH
from shared.rpc.embed_messages import EMBED, EmbedResponse
from shared.rpc.server_call import Call, Serve
from shared.vectors.arrays import TokenIds

TEXT_CHARS_MAX: Final = 32 * 1024
"""Characters of a text that are looked at, from its beginning: the model takes 256 tokens, which are hardly ever
longer.
"""


class Api:
    """The functions that `shared.rpc.server.RpcServer` gives calls to."""

    def __init__(self, tokenizer: Tokenizer, batcher: Batcher) -> None:
        self._tokenizer = tokenizer
        self._batcher = batcher
        self._tasks: set[asyncio.Task[None]] = set()

    def methods(self) -> Mapping[str, Serve]:
        """The functions by the names of their methods."""
        return {EMBED.name: self._serve}

    def _serve(self, calls: Sequence[Call]) -> None:
        for call in calls:
            task = asyncio.create_task(self._answer(call))
            self._tasks.add(task)  # the loop holds tasks weakly
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, call: Call) -> None:
        try:
            answer = await self._embed(call.payload)
        except BaseException as error:
            call.fail(error)
            if not isinstance(error, Exception):
                raise
        else:
            call.answer(answer)

    async def _embed(self, payload: memoryview) -> bytes:
        texts = await asyncio.to_thread(self._tokens, payload)
        vectors = await self._batcher.embed(texts)
        tokens = sum(map(len, texts))
        return EMBED.encode_response(EmbedResponse(vectors.astype("<f4", copy=False).tobytes(), WIDTH, tokens))

    def _tokens(self, payload: memoryview) -> list[TokenIds]:
        """The texts of a request as the model takes them. Raises InvalidArgument."""
        texts = EMBED.decode_request(payload).texts
        return token_ids(self._tokenizer, [text[:TEXT_CHARS_MAX] for text in texts])
