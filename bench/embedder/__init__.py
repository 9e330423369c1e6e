"""`python -m bench.embedder`: the embedder against a bare loop, against other model servers, and against overload."""
