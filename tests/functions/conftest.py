from tests.compactor.conftest import keys, objects, redis, s3_bucket, s3_server, shop, valkey_server

__all__ = ["keys", "objects", "redis", "s3_bucket", "s3_server", "shop", "valkey_server"]
