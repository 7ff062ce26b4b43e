"""The limits of what comes before a request's body: its path and its headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from frontend.http.errors import HeadersTooLarge, PathTooLong

if TYPE_CHECKING:
    from frontend.http.request import Request


def check_sizes(request: Request) -> None:
    """Raises PathTooLong, HeadersTooLarge."""
    limits = request.limits
    path_bytes = len(request.raw_path)
    if path_bytes > limits.path_bytes_max:
        raise PathTooLong("bytes", path_bytes, limits.path_bytes_max, "path")
    header_bytes = sum(len(name) + len(value) for name, value in request.raw_headers)
    if header_bytes > limits.header_bytes_max:
        raise HeadersTooLarge("bytes", header_bytes, limits.header_bytes_max, "headers")
