"""Re-ranking: small stages with one signature, each with its own timing; a failing one is left out, never an error.

    features   a scorer of the caller's own adds to the score      (where one is plugged in)
    in_stock   what can be sold comes first
    boost      what matches a filter gets its score raised or lowered
    taste      a scorer of a user's preferences adds to the score  (where one is plugged in, and the user is named)
    diversity  maximal marginal relevance
    cap        at most so many products of one brand, category, seller, ...

They run in this order. `plan` says which of them, from settings and request; `pipeline` runs them.
"""
