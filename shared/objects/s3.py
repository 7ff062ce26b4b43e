"""The object store over the S3 protocol, by boto3 in threads.

The server must have read-after-write consistency and `PutObject` with `If-None-Match: *` (see
`open.verify_conditional_create`). Checksums that newer clients add by themselves are sent only where the protocol
demands one, because not every server knows them. Objects are deleted one by one: the batch call demands a checksum that
servers disagree on.

Each call makes one attempt: `retrying` owns the deadline, and repeats calls. Sockets have timeouts of their own, so
that a thread whose caller gave up ends soon after.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import boto3
import botocore.config
import botocore.exceptions
import botocore.handlers
from boto3.exceptions import Boto3Error
from boto3.s3.transfer import TransferConfig

from shared.errors import Unavailable, UnknownOutcome
from shared.objects.port import ObjectInfo, ObjectNotFound, check_key, check_range, noticing_full_volume

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client
    from mypy_boto3_s3.type_defs import ListObjectsV2OutputTypeDef

THREADS: Final = 32
DELETES_AT_ONCE: Final = 16
PART_BYTES: Final = 16 * 1024 * 1024
"""Objects of this size and more are transferred in parts of it (S3's multipart transfers), several at once."""

CONNECT_TIMEOUT_S: Final = 3.0
READ_TIMEOUT_S: Final = 20.0

_ABSENT: Final = frozenset({"404", "NoSuchKey"})
_LOST_CREATE: Final = frozenset({"PreconditionFailed", "412"})
_NOT_SENT: Final = (
    botocore.exceptions.EndpointConnectionError,
    botocore.exceptions.ConnectTimeoutError,
    botocore.exceptions.NoCredentialsError,
    botocore.exceptions.ProxyConnectionError,
)

T = TypeVar("T")


class S3Store:
    """Objects of one bucket below a key prefix (empty, or ending in a slash)."""

    def __init__(self, client: S3Client, bucket: str, prefix: str, threads: ThreadPoolExecutor) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._threads = threads
        self._parts = TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=8, num_download_attempts=1
        )

    async def get(self, key: str) -> bytes:
        name = self._name(key)

        def read() -> bytes:
            return self._client.get_object(Bucket=self._bucket, Key=name)["Body"].read()

        return await self._run(key, read)

    async def get_range(self, key: str, start: int, end: int) -> bytes:
        check_range(start, end)
        name = self._name(key)

        def read() -> bytes:
            try:
                answer = self._client.get_object(Bucket=self._bucket, Key=name, Range=f"bytes={start}-{end - 1}")
            except botocore.exceptions.ClientError as error:
                if _code(error) in {"InvalidRange", "416"}:  # begins at or after the object's end
                    return b""
                raise
            return answer["Body"].read()

        return await self._run(key, read)

    async def download(self, key: str, path: Path) -> None:
        name = self._name(key)

        def fetch() -> None:
            with noticing_full_volume(path):
                self._client.download_file(self._bucket, name, os.fspath(path), Config=self._parts)

        await self._run(key, fetch)

    async def put(self, key: str, data: bytes | Path) -> None:
        name = self._name(key)
        if isinstance(data, Path):
            file = os.fspath(data)
            await self._run(key, lambda: self._client.upload_file(file, self._bucket, name, Config=self._parts))
        else:
            await self._run(key, lambda: self._client.put_object(Bucket=self._bucket, Key=name, Body=data))

    async def create(self, key: str, data: bytes) -> bool:
        name = self._name(key)

        def write() -> bool:
            try:
                self._client.put_object(Bucket=self._bucket, Key=name, Body=data, IfNoneMatch="*")
            except botocore.exceptions.ClientError as error:
                if _code(error) in _LOST_CREATE:
                    return False
                raise
            return True

        return await self._run(key, write, unsure=UnknownOutcome)

    async def delete(self, keys: Iterable[str]) -> None:
        names = iter([self._name(key) for key in keys])

        async def one_after_the_other() -> None:
            for name in names:
                await self._run(name, lambda name=name: self._client.delete_object(Bucket=self._bucket, Key=name))  # type: ignore[misc] # no type for a lambda with a default

        ended = await asyncio.gather(*(one_after_the_other() for _ in range(DELETES_AT_ONCE)), return_exceptions=True)
        for failure in ended:
            if failure is not None:
                raise failure

    async def list(self, prefix: str) -> AsyncIterator[ObjectInfo]:
        start = self._prefix + prefix
        token = ""
        while True:
            page = await self._run(prefix, lambda token=token: self._page(start, token))  # type: ignore[misc] # no type for a lambda with a default
            for found in page.get("Contents", []):
                key = found["Key"].removeprefix(self._prefix)
                yield ObjectInfo(key, found["Size"], found["LastModified"].timestamp())
            token = page.get("NextContinuationToken", "")
            if not token:
                return

    def _page(self, start: str, token: str) -> ListObjectsV2OutputTypeDef:
        if token:
            return self._client.list_objects_v2(Bucket=self._bucket, Prefix=start, ContinuationToken=token)
        return self._client.list_objects_v2(Bucket=self._bucket, Prefix=start)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)

    async def _run(self, key: str, work: Callable[[], T], unsure: type[Unavailable] = Unavailable) -> T:
        """Does the work in a thread and maps its errors to the port's; `unsure` when it may have been applied."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except botocore.exceptions.ClientError as error:
            raise _refusal(key, error, unsure) from error
        except _NOT_SENT as error:
            raise Unavailable(f"object storage: {error}") from error
        except (botocore.exceptions.BotoCoreError, Boto3Error, OSError) as error:
            raise unsure(f"object storage: {error}") from error


def _code(error: botocore.exceptions.ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _refusal(key: str, error: botocore.exceptions.ClientError, unsure: type[Unavailable]) -> Exception:
    """An answer other than success. A server error on a write says nothing about whether it was applied."""
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if _code(error) in _ABSENT:
        return ObjectNotFound(key)
    kind = unsure if status >= 500 and _code(error) != "SlowDown" else Unavailable
    return kind(f"object storage: {error}")


@contextlib.asynccontextmanager
async def open_s3(bucket: str, prefix: str) -> AsyncIterator[S3Store]:
    """The store in this bucket; endpoint, region and credentials by the usual AWS variables."""
    with ThreadPoolExecutor(THREADS, thread_name_prefix="s3-store") as threads:
        client = await asyncio.get_running_loop().run_in_executor(threads, _client)
        try:
            yield S3Store(client, bucket, prefix, threads)
        finally:
            client.close()


def _client() -> S3Client:
    config = botocore.config.Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        max_pool_connections=2 * THREADS,
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"total_max_attempts": 1},
    )
    session = boto3.session.Session()
    region = session.region_name or os.environ.get("AWS_REGION") or "us-east-1"
    client = session.client("s3", region_name=region, config=config)
    # Without `Expect: 100-continue`, which costs every write a round trip: what is written here is rarely refused.
    client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
    return client
