"""The same `Indexer` service on a Milvus server, for catalogues and availability beyond one machine.

Nothing outside this package knows pymilvus, and nothing here loads it before the engine is started. What Milvus cannot
do the same way stands in `deploy/milvus.md`.
"""
