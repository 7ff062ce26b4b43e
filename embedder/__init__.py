"""The embedder: turns texts into vectors for the frontends, with a model that is run here."""

import os

# Worker threads are the parallelism: each runs the whole model on texts of its own, so a BLAS call needs no threads.
# Read by the libraries when they are loaded, so it has to be said before anything imports numpy.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
