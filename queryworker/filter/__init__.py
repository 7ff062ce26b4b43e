"""Filters: which rows of a segment or of the log's tail match a `where`."""
