"""Full-text search over the words of the catalogue.

For each collection there is a derived file, the *lexicon* (SQLite FTS5, BM25), with one document for each product: the
words of the string attributes of its images, each attribute's value once. A process of its own feeds it, at a low
priority, so that writes and searches never wait for it:

    commit ──▶ `index.TextIndex` (which products changed) ──▶ `feeding.TextFeeder` ──jobs──▶ `process` ──▶ lexicon
                                                                                              ▲ reads the truth

The process reads what changed from the collection's database, so a job says nothing but names, and doing one twice is
harmless. The lexicon remembers the generation it has reached. One that is missing, damaged or of another generation is
compared with the truth, product by product, and what differs is indexed anew; nothing but time is lost with it, so it
is in no snapshot. A search waits until the lexicon has reached the generation that was current when it came.
"""
