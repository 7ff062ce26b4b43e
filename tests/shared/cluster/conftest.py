from tests.redis_server import keys, redis, redis_server

__all__ = ["keys", "redis", "redis_server"]
