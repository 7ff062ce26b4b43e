"""Polychrome beside a real Chroma server: the same data, the same bytes on the wire, the same run.

data       the rows and the request bodies made of them
servers    starts and stops the two servers
cost       CPU time and memory of a server's processes, from /proc
load       the load generator, in a process of its own
ingest, operations    what is measured
report     medians, ratios, the table
"""
