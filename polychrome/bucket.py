"""`polychrome create-bucket`: creates the bucket that POLYCHROME_BUCKET_URL names, when it is missing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

WAIT_S_MAX: Final = 120.0
"""Longest wait for a store that does not answer."""
_PAUSE_S: Final = 1.0
_EXISTS: Final = frozenset({"BucketAlreadyOwnedByYou", "BucketAlreadyExists"})
"""Error codes of S3 that say that another process has created the bucket meanwhile."""


class BucketError(Exception):
    """The bucket is not there and cannot be made; the message says why."""


def create_bucket(url: str, say: Callable[[str], None]) -> None:
    """Waits for the store, then creates the bucket of `s3://bucket/prefix`; other URLs need none. `say` gets a line for
    people about what happens. Raises BucketError.
    """
    if not url:
        raise BucketError("no bucket is named: give its URL, or set POLYCHROME_BUCKET_URL")
    parts = urlsplit(url)
    if parts.scheme in ("file", "memory"):
        say(f"{url} needs no bucket")
        return
    if parts.scheme != "s3" or not parts.netloc:
        raise BucketError(f"{url!r} is not file:///directory, s3://bucket/prefix or memory://")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    client = boto3.client(
        "s3", region_name=region, config=Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 1})
    )
    deadline_s = time.monotonic() + WAIT_S_MAX
    while True:
        try:
            say(f"bucket {parts.netloc}: {_ensure(client, parts.netloc, region)}")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] < 500:
                raise BucketError(str(error)) from error
            problem = str(error)
        except (NoConnectionError, HTTPClientError) as error:
            problem = str(error)
        except BotoCoreError as error:  # no credentials, a wrong region: waiting mends neither
            raise BucketError(str(error)) from error
        else:
            return
        if time.monotonic() > deadline_s:
            raise BucketError(problem)
        say(f"waiting: {problem}")
        time.sleep(_PAUSE_S)


def _ensure(client: S3Client, bucket: str, region: str) -> str:
    """Creates the bucket unless it is there; returns which it was, for people."""
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
            raise
    else:
        return "is there"
    try:
        if region == "us-east-1":  # the one region that may not be named
            client.create_bucket(Bucket=bucket)
        else:
            client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})  # type: ignore[typeddict-item]  # any region
    except ClientError as error:
        if error.response["Error"]["Code"] not in _EXISTS:
            raise
    return "created"
