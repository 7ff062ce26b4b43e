"""The audit log of a frontend: what of a request is written down, and how it gets into the bucket."""
