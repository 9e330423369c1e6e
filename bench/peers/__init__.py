"""Other model servers doing the embedder's work, for comparison. Each is a package of its own, optional to install."""
