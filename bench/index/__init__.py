"""The index, measured: recall and speed against hnswlib and Milvus, filters, behaviour while it is written to."""
