"""The query worker: any worker can serve any shard, from the bucket and the log."""

import os

# Worker threads are the parallelism: a BLAS call that starts threads of its own would only make them wait for each
# other. Read by the libraries when they are loaded, so it has to be said before anything imports numpy.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
