import pytest

from tests.compactor.conftest import Shop, keys, objects, redis, s3_bucket, s3_server, shop, valkey_server
from tests.forks.family import Family

__all__ = ["keys", "objects", "redis", "s3_bucket", "s3_server", "shop", "valkey_server"]


@pytest.fixture
def family(shop: Shop) -> Family:
    return Family(shop)
