"""The library that the processes share. Imported before anything else of theirs."""

import os

# A process has threads of its own for its work: each multiplies by itself, instead of waking one thread per core.
# Read once, when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Arrow takes its memory from the C library: what it freed then goes back to the system with the rest
# (shared.process.memory). Its own allocator keeps it, in as many places as there are threads. Read once, when pyarrow
# is imported.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
# So that one has nothing to tidy up, and needs no thread for it: a process with threads cannot be copied safely
# (polychrome.local.fork).
os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")
