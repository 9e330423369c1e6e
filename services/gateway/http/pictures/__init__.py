"""Product pictures: the files that the catalogue names, as far as they lie where the gateway may read."""
