"""The service processes; they speak gRPC to each other and never import one another."""

import os

# Whatever process is started from here (a builder, a supervised service) is a fresh interpreter. gRPC's fork handlers
# would only get in the way: in the instant between fork and exec they can revive threads and abort the child.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
