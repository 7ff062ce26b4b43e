"""The form of a snapshot of the catalog in the bucket: an image as JSON with a checksum, compressed by gzip.

What gzip writes before its checksummed part is always the same but for the time, which is the image's: so every byte of
a snapshot can be checked.
"""

from __future__ import annotations

import gzip
import zlib
from typing import Final

from shared.catalog.image_model import CatalogImage, decode_image
from shared.errors import Corrupt

COMPRESSION_LEVEL: Final = 3

_GZIP_BEGIN: Final = b"\x1f\x8b\x08\x00"
_GZIP_UNCHECKED: Final = b"\x00\xff"
"""Bytes 8 and 9 of a snapshot: the one part of a gzip file, beside the time before them, that its checksum leaves out.
"""


def encode_snapshot(image: CatalogImage) -> bytes:
    """The bytes of the snapshot with this image. Takes long for a large catalog: for a thread."""
    return gzip.compress(image.encode(), compresslevel=COMPRESSION_LEVEL, mtime=int(image.taken_s))


def decode_snapshot(data: bytes) -> CatalogImage:
    """The image in a snapshot. Takes long for a large catalog: for a thread. Raises Corrupt."""
    try:
        text = gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise Corrupt(f"a catalog snapshot that does not unpack: {error}") from error
    return decode_image(text)


def check_snapshot(data: bytes) -> CatalogImage:
    """The image in a snapshot. Raises Corrupt unless these are the bytes of a snapshot, down to the last one."""
    image = decode_snapshot(data)
    if not data.startswith(_GZIP_BEGIN + int(image.taken_s).to_bytes(4, "little") + _GZIP_UNCHECKED):
        raise Corrupt("its head is not the one that a snapshot is written with")
    return image
