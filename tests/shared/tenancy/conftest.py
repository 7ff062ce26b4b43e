from tests.redis_server import keys, own_server, redis, redis_server, valkey_server

__all__ = ["keys", "own_server", "redis", "redis_server", "valkey_server"]
