"""Every fixed limit of the project in one place, with the relations between them checked on import."""

from __future__ import annotations

from typing import Final

BODY_BYTES_MAX: Final = 40 * 1024 * 1024
"""Default limit of a request body; configurable."""

BATCH_SIZE_ADVICE: Final = 5461
"""`max_batch_size` of pre-flight-checks: advice to clients, never enforced."""

ENTRY_BYTES_TARGET: Final = 4 * 1024 * 1024
"""A batch whose payload is larger is cut into several log entries of about this size."""

GRAPH_ROWS_MIN: Final = 2048
"""A segment with fewer rows has no graph, codes or text index: scanning it exactly is as fast and finds everything."""

GRAPH_NEIGHBORS_MIN: Final = 2
GRAPH_NEIGHBORS_MAX: Final = 256
"""Graphs are built with a number of neighbours within these, whatever a client asks for."""

GRAPH_EF_MAX: Final = 10_000
"""Beam widths of building and searching are cut to this, whatever a client asks for."""

REGEX_BYTES_MAX: Final = 16 * 1024
"""A longer pattern is refused before it is parsed. Also the default of all patterns of a request together; that is
configurable."""

# Defaults of what a request may hold, all configurable (`frontend.request_limits`, which says what each counts).

PATH_BYTES_MAX: Final = 8 * 1024
HEADER_BYTES_MAX: Final = 64 * 1024
JSON_CONTAINERS_MAX: Final = 1024 * 1024
JSON_MEMBERS_MAX: Final = 4 * 1024 * 1024
JSON_VALUES_MAX: Final = 8 * 1024 * 1024
NAME_BYTES_MAX: Final = 512
COLLECTION_BYTES_MAX: Final = 256 * 1024
IDS_MAX: Final = 500_000
ID_BYTES_MAX: Final = 4096
DOCUMENT_BYTES_MAX: Final = BODY_BYTES_MAX
URI_BYTES_MAX: Final = 1024 * 1024
DIMENSIONS_MAX: Final = 65_536
METADATA_KEYS_MAX: Final = 1024
METADATA_KEY_BYTES_MAX: Final = 512
METADATA_VALUE_BYTES_MAX: Final = 1024 * 1024
FILTER_CLAUSES_MAX: Final = 1024
FILTER_VALUES_MAX: Final = 10_000
FILTER_BYTES_MAX: Final = 4 * 1024 * 1024
REGEXES_MAX: Final = 64
QUERY_VECTORS_MAX: Final = 10_000
RESULTS_MAX: Final = 1_000_000
SEARCHES_MAX: Final = 256
FACETS_MAX: Final = 64

METADATA_PAIRS_MAX: Final = 10_000
"""Default of the (metadata key, value type) pairs that the records of a collection may have; configurable."""

TENANTS_MAX: Final = 100_000
DATABASES_MAX: Final = 10_000
COLLECTIONS_MAX: Final = 100_000
"""Defaults of the tenants of a cluster, the databases of a tenant and the collections of a database; configurable."""

NEW_PAIRS_MAX: Final = 10_000
"""Pairs that one append may bring. The script that appends adds them while the log's server does nothing else."""

BACKLOG_OPS_MAX: Final = 2_000_000
"""Default limit of operations in one collection's log before writes are answered with Backoff; configurable."""

BACKLOG_OPS_CEILING: Final = 1 << 24
"""No limit of operations may be set higher. The positions handed out beyond the newest manifests are at most this many,
so a collection restored without its log goes on this far beyond them, and no position is handed out twice."""

OWED_RAISES_MAX: Final = 7
"""Times that heads are raised after restarts of Redis without a snapshot that has them, because the bucket takes none.
A restoration goes on this many ceilings further."""

BACKLOG_BYTES_MAX: Final = 2 * 1024 * 1024 * 1024
"""Default limit of bytes in one collection's log; configurable."""

REQUEST_ID_TTL_S: Final = 600
"""Time for which the append script remembers a request id."""

WITNESS_BYTES_MAX: Final = 32 * 1024 * 1024
WITNESS_S_MAX: Final = 60.0
"""Defaults of what a process keeps of the log that it has seen lately (`shared.log.witness`); configurable."""

READ_IDS_MAX: Final = 100_000
"""Most ids that a conditional commit may have read. They are one argument of the script that appends, which makes a
table of them while the log's server does nothing else."""

SHARDS_MAX: Final = 256

RPC_FRAME_BYTES_MAX: Final = 1024 * 1024 * 1024
"""Longest frame between processes. A reader holds only what has arrived, so a false claim costs nothing."""

RPC_HEADER_BYTES_MAX: Final = 64 * 1024

RPC_CALLS_MAX: Final = 512
"""Calls of one connection that its server works on at once; others wait."""

ANSWERS_BYTES_MAX: Final = 256 * 1024 * 1024
"""Default limit of bytes of long answers that a caller holds or has asked for, all of them together; configurable."""

RPC_UNREAD_S_MAX: Final = 120.0
"""A long answer of which its caller takes nothing for so many seconds is given up. Frontends give up slow clients
before (`POLYCHROME_FRONTEND_SEND_TIMEOUT_S`)."""

RPC_ANSWER_S_MAX: Final = 900.0
"""Time after its call at which a long answer is given up, in seconds, however its caller reads: until it is sent a
worker keeps a version of the data in memory, what the answer is made of.
"""

RPC_UNSENT_BYTES_MAX: Final = 1024 * 1024 * 1024
"""Bytes of long answers that a server holds for slow callers. When there are more, it gives up those answers of which
nothing was taken for longest."""

U32_MAX: Final = 2**32 - 1

assert METADATA_KEYS_MAX <= NEW_PAIRS_MAX <= METADATA_PAIRS_MAX
assert BACKLOG_OPS_MAX <= BACKLOG_OPS_CEILING
assert ENTRY_BYTES_TARGET * 4 <= BODY_BYTES_MAX
assert RPC_FRAME_BYTES_MAX <= RPC_UNSENT_BYTES_MAX
assert RPC_UNREAD_S_MAX < RPC_ANSWER_S_MAX
assert BODY_BYTES_MAX + RPC_HEADER_BYTES_MAX < RPC_FRAME_BYTES_MAX < U32_MAX
