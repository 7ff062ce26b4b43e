"""Where a cluster's Redis and bucket are, and other stores, for commands that work beside a cluster's processes."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

from polychrome.local.datadir import read_register
from polychrome.local.plan import ClusterOptions


class LocationError(Exception):
    """No cluster was named, or none is running there; the message says what to give."""


@dataclass(frozen=True, slots=True)
class ClusterLocation:
    """The URLs of a cluster's Redis and bucket, and the prefix of its keys in Redis."""

    redis_url: str
    redis_prefix: str
    bucket_url: str


def add_location(parser: argparse.ArgumentParser) -> None:
    """Adds the option that names a local cluster by its data directory."""
    text = "that of a local cluster; one that is elsewhere is named by REDIS_URL and POLYCHROME_BUCKET_URL"
    default = ClusterOptions().data_dir
    parser.add_argument("--data-dir", type=Path, default=default, help=f"{text} (default: ./{default})")


def locate(data_dir: Path) -> ClusterLocation:
    """The cluster that REDIS_URL and POLYCHROME_BUCKET_URL name; what they don't, is that of the one which runs in
    `data_dir`. Raises LocationError.
    """
    register = read_register(data_dir)
    redis_url = os.environ.get("REDIS_URL") or (register.redis_url if register else None)
    bucket_url = os.environ.get("POLYCHROME_BUCKET_URL")
    if redis_url is None or (bucket_url is None and register is None):
        raise LocationError(
            f"no cluster is running in {data_dir}: name another by --data-dir, or by REDIS_URL and "
            "POLYCHROME_BUCKET_URL"
        )
    prefix = register.redis_prefix if register else os.environ.get("POLYCHROME_REDIS_PREFIX", "pc")
    return ClusterLocation(redis_url, prefix, bucket_url or (data_dir.resolve() / "objects").as_uri())


def bucket_url(data_dir: Path) -> str:
    """The bucket that POLYCHROME_BUCKET_URL names, or that of the cluster in `data_dir`, whether it runs or not. Raises
    LocationError.
    """
    given = os.environ.get("POLYCHROME_BUCKET_URL")
    if given is None and not (data_dir / "objects").is_dir():
        raise LocationError(f"there are no data of a cluster in {data_dir}: name a bucket, or another by --data-dir")
    return given or (data_dir.resolve() / "objects").as_uri()


def existing_url(place: str) -> str:
    """The URL of an object store that is there already. Raises LocationError for a directory that is not, which opening
    would create.
    """
    if "://" not in place and not Path(place).is_dir():
        raise LocationError(f"there is no directory {place}")
    return url_of(place)


def url_of(place: str) -> str:
    """The URL of an object store that the command line names: a directory, or already a URL."""
    return place if "://" in place else Path(place).resolve().as_uri()
