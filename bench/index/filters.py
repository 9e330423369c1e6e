"""Filters by how much they leave: is recall held, and what does a search cost?

Two attributes: `bucket` has nothing to do with the vectors; `region` follows them, so that its filter leaves one corner
of the space, far from most queries. One caller, on cores as in the comparison.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from bench.index.datasets import PERMILLE, Dataset, K
from bench.index.setup import EF, Bench, Engine
from bench.index.truth import exact_neighbours, recall
from bench.statistics import percentile_ms

PERMILLES = (1_000, 500, 200, 100, 50, 20, 10, 1)
ATTRIBUTES = {"uniform": "bucket", "correlated": "region"}


async def measure(bench: Bench, data: Dataset, engines: dict[str, Engine]) -> dict[str, Any]:
    """Returns, for each engine and kind of filter, a row for each selectivity; and the least recall of each engine.

    Raises:
        RuntimeError: An answer breaks its filter.
    """
    result: dict[str, Any] = {"ef": EF, "rows": {name: {} for name in engines}}
    queries = data.queries[: bench.pace.filtered_queries]
    vectors = data.vectors()
    for kind, attribute in ATTRIBUTES.items():
        values = (data.bucket if attribute == "bucket" else data.region)[: data.count]
        for permille in PERMILLES:
            rows = np.flatnonzero(values < permille)
            truth = exact_neighbours(vectors[: data.count], queries, K, cosine=data.cosine, rows=rows)
            for name, engine in engines.items():
                condition = f"{attribute} < {permille}"
                requests = engine.requests(queries, ef=EF, condition=condition)
                await bench.once(engine, requests[:2])  # what is made for a filter's first use is not its usual cost
                found, latencies = await bench.once(engine, requests)
                if wrong := sum(int((values[each] >= permille).sum()) for each in found):
                    raise RuntimeError(f"{name}: {wrong} hits break `{condition}`")
                row = {
                    "percent": 100 * permille / PERMILLE,
                    "passing": len(rows),
                    "recall": recall(vectors, queries, truth, found, cosine=data.cosine),
                    "answers_short_of_k": sum(len(each) < min(K, len(rows)) for each in found),
                    "p50_ms": percentile_ms(latencies, 50),
                    "p99_ms": percentile_ms(latencies, 99),
                }
                result["rows"][name].setdefault(kind, []).append(row)
                bench.say(
                    f"{name}, {kind} filter, {row['percent']:g} % pass: recall {row['recall']}, "
                    f"p50 {row['p50_ms']} ms, p99 {row['p99_ms']} ms"
                )
    result["recall_min"] = {
        name: min(row["recall"] for rows in kinds.values() for row in rows) for name, kinds in result["rows"].items()
    }
    return result
