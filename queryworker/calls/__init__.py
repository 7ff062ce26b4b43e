"""Calls from frontends: how they are decoded, batched, answered and delivered."""
