from tests.redis_server import keys, valkey_server

__all__ = ["keys", "valkey_server"]
