from tests.fuzz.sentinel import sentinel
from tests.outside.fixtures import server_client, server_url

__all__ = ["sentinel", "server_client", "server_url"]
