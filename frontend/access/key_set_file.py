"""Reads the key set of the issuer of tokens, from where the operator has said it is."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import aiohttp

from shared.errors import Unavailable

KEY_SET_BYTES_MAX: Final = 1024 * 1024
TIMEOUT_S: Final = 5.0


async def read_key_set(http: aiohttp.ClientSession, place: str) -> bytes:
    """The bytes of the key set at a path or a URL. No redirect is followed: it would lead to where the operator did not
    point. Raises OSError, Unavailable.
    """
    if "://" not in place:
        return await asyncio.to_thread(Path(place).read_bytes)
    try:
        async with http.get(place, allow_redirects=False, timeout=aiohttp.ClientTimeout(TIMEOUT_S)) as response:
            if response.status != 200:
                raise Unavailable(f"the issuer answers with the status {response.status}")
            data = await response.content.read(KEY_SET_BYTES_MAX + 1)
            while len(data) <= KEY_SET_BYTES_MAX and not response.content.at_eof():
                data += await response.content.read(KEY_SET_BYTES_MAX + 1 - len(data))
    except aiohttp.ClientError as error:
        raise Unavailable(f"the issuer does not answer: {error}") from error
    if len(data) > KEY_SET_BYTES_MAX:
        raise Unavailable("the issuer's key set is too long")
    return data
