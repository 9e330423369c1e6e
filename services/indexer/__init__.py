"""The indexer: durable points and their nearest neighbours, one shard of an index."""

import os

# Searches run side by side, one thread each. A BLAS that starts a thread per core for every product would make them
# queue for each other; its pool size is read once, when numpy loads, so it is set before anything here imports it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
