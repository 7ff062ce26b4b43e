"""Views: what a worker holds of one shard, and what a read sees of it as of one position."""
