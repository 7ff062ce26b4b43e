from tests.outside.fixtures import server_client, server_url

__all__ = ["server_client", "server_url"]
