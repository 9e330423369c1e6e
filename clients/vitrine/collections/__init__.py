"""Work on whole collections, over all shards of an index: aliases, snapshots, resharding, comparing, exporting.

Everything here asks the shards themselves, and fails closed: an answer from some of them is no answer.
"""

from __future__ import annotations
