from tests.redis_server import own_server, valkey_server

__all__ = ["own_server", "valkey_server"]
