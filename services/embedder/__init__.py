"""The embedder: image bytes in, vectors out; and the catalogue's way into the index."""
