"""The shards that a worker serves: their views, kept current with the log and with the newest manifest."""
