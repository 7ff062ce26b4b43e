"""Reads of one read view: count, get, query and the steps of a search. Pure functions, which run in threads."""
