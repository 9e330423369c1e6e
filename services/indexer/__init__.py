"""The indexer: durable points and their nearest neighbours, one shard of an index."""

import os

# Searches run side by side, one thread each. A BLAS that starts a thread per core for every product would make them
# queue for each other; its pool size is read once, when numpy loads, so it is set before anything here imports it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# The builder process is started by fork and exec; gRPC's handlers around fork are for children that go on using it.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
