"""The service processes; they speak gRPC to each other and never import one another."""

import os

# Whatever process is started from here (a builder, a supervised service) is a fresh interpreter. gRPC's fork handlers
# would only get in the way: in the instant between fork and exec they can revive threads and abort the child.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

# A server's sockets are read by the thread that waits for events anyway, not by a pool of threads that hands them on:
# two wake-ups fewer for a call (docs/decisions/0008-fewer-interruptions.md).
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
