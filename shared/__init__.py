"""What the processes share. Imported before anything else of theirs."""

import os

# A process has threads of its own for its work: each multiplies by itself, instead of waking one thread per core.
# Read once, when numpy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
