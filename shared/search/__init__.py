"""Searches as docs/wire.md, section 15, means them: what one is, and how its answer comes about, whoever runs it."""
