"""Limits of the texts in a request, in bytes of UTF-8, checked without encoding them where their characters tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from frontend.request_limits import RequestLimits, check_limit

UTF8_BYTES_MAX: Final = 4
"""Bytes that a character takes at most."""

ROWS_AT_ONCE: Final = 64
"""Rows of metadata whose keys are looked at in one step, which no other thread interrupts."""


def utf8_bytes(text: str) -> int:
    """The bytes of a text in UTF-8. A lone surrogate, which a text from JSON may hold, counts for three."""
    return len(text) if text.isascii() else len(text.encode(errors="surrogatepass"))


def check_texts(what: str, texts: Sequence[str | None], most: int, where: str) -> None:
    """Raises LimitExceeded when one of the texts has more than `most` bytes; None has none."""
    longest = max((len(text) for text in texts if text is not None), default=0)
    if longest * UTF8_BYTES_MAX <= most:
        return
    for index, text in enumerate(texts):
        if text is not None and len(text) * UTF8_BYTES_MAX > most:
            check_limit(f"bytes of {what}", utf8_bytes(text), most, f"{where}[{index}]")


def check_metadatas(column: Sequence[Any], limits: RequestLimits, body_bytes: int | None) -> None:
    """Raises LimitExceeded for a row with too many keys, a key or a value that is too long. Values are looked at only
    if the body is longer than a value may be. `column` may have any shape, what is no object is passed over.
    """
    for start in range(0, len(column), ROWS_AT_ONCE):
        rows = {
            index: row for index, row in enumerate(column[start : start + ROWS_AT_ONCE], start) if type(row) is dict
        }
        for index, row in rows.items():
            if len(row) > limits.metadata_keys_max:
                check_limit("metadata keys", len(row), limits.metadata_keys_max, f"metadatas[{index}]")
        keys = set[str]().union(*rows.values())
        check_texts("a metadata key", list(keys), limits.metadata_key_bytes_max, "metadatas: keys")
        if body_bytes is None or body_bytes > limits.metadata_value_bytes_max:
            for index, row in rows.items():
                for key, value in row.items():
                    size = _text_bytes(value)
                    if size > limits.metadata_value_bytes_max:
                        where = f"metadatas[{index}].{key}"
                        check_limit("bytes of a metadata value", size, limits.metadata_value_bytes_max, where)


def _text_bytes(value: Any) -> int:
    """The bytes of a value that is a string, or of the strings in one that is an array; 0 of any other."""
    if type(value) is str:
        return utf8_bytes(value)
    texts: Iterable[Any] = value if type(value) is list else ()
    return sum(utf8_bytes(text) for text in texts if type(text) is str)
