"""Fixtures of the tests in this directory."""

from tests.logservice.healing.witnessed import cluster

__all__ = ["cluster"]
