"""Searches (docs/wire.md, section 15): their form, and how one is executed over a source of records.

A query worker executes them where one shard is the whole collection (`queryworker.query.search_source`), else the
frontend does, over all shards (`frontend.read.searching`).
"""
