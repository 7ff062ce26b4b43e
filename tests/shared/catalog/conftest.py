from tests.redis_server import catalog, database, keys, own_server, redis, redis_server

__all__ = ["catalog", "database", "keys", "own_server", "redis", "redis_server"]
