"""Regular expressions with the syntax and meaning of the Rust `regex` crate (docs/wire.md, section 14).

The crate itself does the work, reached through pydantic-core, the best kept of its bindings: linear time by
construction, Unicode classes, no look-around, no back-references, a compiled size of at most 10 MiB.
"""

from __future__ import annotations

from functools import lru_cache

from pydantic_core import SchemaError, SchemaValidator, core_schema

from shared.errors import InvalidArgument
from shared.limits import REGEX_BYTES_MAX

_PREFIX = "Regex syntax errror: "  # three r's, as the reference spells it
_CACHED = 16  # a compiled pattern holds up to 10 MiB, and what its searches cache


class Matcher:
    """A compiled pattern; safe for any number of threads."""

    __slots__ = ("matches", "pattern")

    def __init__(self, pattern: str, validator: SchemaValidator) -> None:
        self.pattern = pattern
        self.matches = validator.isinstance_python
        """`matches(text)`: whether the pattern occurs anywhere in the text. The engine's own function, because it is
        called once per document."""


@lru_cache(_CACHED)
def compile_regex(pattern: str) -> Matcher:
    """The matcher of a pattern. Raises InvalidArgument (`Regex syntax errror: ...`) when the crate refuses the pattern
    or it is too long.

    Takes microseconds for ordinary patterns, tens of milliseconds for those near the size limit.
    """
    if len(pattern.encode()) > REGEX_BYTES_MAX:
        raise InvalidArgument(f"{_PREFIX}pattern is longer than {REGEX_BYTES_MAX} bytes")
    schema = core_schema.str_schema(pattern=pattern, regex_engine="rust-regex", strict=True)
    try:
        return Matcher(pattern, SchemaValidator(schema))
    except SchemaError as error:
        # «Error building "str" validator:\n  SchemaError: <the crate's own words>»
        reason = str(error).partition("SchemaError: ")[2]
        raise InvalidArgument(f"{_PREFIX}{reason}") from None
