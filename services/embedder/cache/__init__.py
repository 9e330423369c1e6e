"""Vectors of images seen before: in this process, and in a Redis that replicas share.

What is kept, and for how long:

- An entry is a vector and, where the model has a classifier, its most probable classes. Image bytes, file names and
  callers are never kept.
- It is found by a sha256 over the image's sha256, the crop and the model's fingerprint. Nobody can list pictures from
  the keys; who has a picture can find out whether it was embedded lately.
- An entry is not served after `cache_ttl_seconds`. Redis deletes it then; in memory its place is taken by the next
  entries.
- Whoever can write to the Redis can decide what an image's vector is: give it a password and TLS (`rediss://`), and
  no other users. A `maxmemory` with the policy `allkeys-lru` bounds it.

Nothing here fails a request. A Redis that is dead, slow or talks nonsense makes misses.
"""
