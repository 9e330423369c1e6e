"""The benchmark's own parts, on real processes with few points. What they measure is not tested, that they do is."""

import gzip
import json
import os
from contextlib import AsyncExitStack

import numpy as np
import pytest

from bench.embedder.child import Child, ChildError
from bench.embedder.machine import ForeignLoad
from bench.index import busy, filters, growth, recovery, wire
from bench.index.compare import Comparison, HnswlibBare, speed_at
from bench.index.datasets import PERMILLE, Dataset, made_set, open_set
from bench.index.fashion import DatasetError, read_fashion
from bench.index.messages import read_messages, write_messages
from bench.index.pinning import one_core_each, pinned
from bench.index.recipe import Recipe
from bench.index.report import BEGIN, END, PAGE, write_report
from bench.index.running import KEYS, RESULT_FILE, Benchmark
from bench.index.setup import Bench, Ours, Pace
from bench.index.shard import Shard, empty_server
from bench.index.truth import exact_neighbours, recall

ROWS, SPARE, DIM = 1_200, 600, 12
BRIEF = Pace(
    made_rows=ROWS,
    spare_rows=SPARE,
    growth_rows=(300, 600),
    rounds=1,
    seconds=0.2,
    callers=(1, 8),
    curve=(16, 64),
    curve_seconds=0.2,
    recall_queries=20,
    filtered_queries=10,
    idle_seconds=0.5,
    busy_seconds=1.0,
    writes_per_s=300.0,
    probes_per_s=50.0,
    fresh_points=3,
    patience_seconds=0.0,
)
# Several segments of so few points.
SMALL = {"segment_points": "256"}


def some_vectors(count, seed=0, dim=DIM):
    vectors = np.random.default_rng(seed).normal(size=(count, dim)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def small_set(cache, cosine=True):
    return open_set(
        "small", ROWS, ROWS + SPARE, lambda: [some_vectors(ROWS + SPARE)], some_vectors(40, 1), cache, cosine=cosine
    )


class SmallSources:
    """The data sets of a run, without Fashion-MNIST."""

    furniture = ()

    def __init__(self, cache):
        self._cache = cache

    def fashion(self):
        return small_set(self._cache, cosine=False)

    def made(self, rows=None):
        if rows is None:
            return small_set(self._cache)
        return open_set(
            "grown", rows, rows, lambda: [some_vectors(rows)], some_vectors(20, 1), self._cache, cosine=True
        )


@pytest.fixture
def data(tmp_path) -> Dataset:
    return small_set(tmp_path / "data")


@pytest.fixture
async def bench(tmp_path):
    scratch, logs = tmp_path / "scratch", tmp_path / "logs"
    scratch.mkdir()
    logs.mkdir()
    async with AsyncExitStack() as stack:
        children = [
            await stack.enter_async_context(Child("bench.index.load", logs / f"{name}.log"))
            for name in ("load", "writer", "prober")
        ]
        yield Bench(BRIEF, one_core_each(), scratch, logs, *children, ForeignLoad(0.0), lambda line: None, SMALL)


@pytest.fixture
async def shard(bench, data):
    async with Shard(bench.scratch / "shard", bench.logs, SMALL) as shard:
        await shard.start()
        filled = await shard.fill(data, bench.writer, bench.scratch)
        assert filled["points_per_s"] > 0
        assert filled["segments"] > 0
        yield shard


def test_messages_come_back_as_they_were(tmp_path):
    messages = [b"", b"one", bytes(range(256)) * 300]
    assert read_messages(write_messages(tmp_path / "messages", messages)) == messages


def test_what_starts_within_a_pin_has_its_cores_and_others_do_not():
    before = os.sched_getaffinity(0)
    with pinned(one_core_each().server):
        assert os.sched_getaffinity(0) == one_core_each().server
    assert os.sched_getaffinity(0) == before


def test_a_missing_data_set_says_what_to_install(tmp_path):
    with pytest.raises(DatasetError, match="dataset-fashion-mnist"):
        read_fashion(tmp_path)


def test_a_damaged_data_set_is_refused(tmp_path):
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(b"no gzip")
    with pytest.raises(DatasetError, match="cannot be read"):
        read_fashion(tmp_path)
    path.write_bytes(gzip.compress(np.array([0x803, 2, 28, 28], ">u4").tobytes() + bytes(784)))
    with pytest.raises(DatasetError, match="784 pixels"):
        read_fashion(tmp_path)


def test_pictures_are_read_as_they_were_written(tmp_path):
    pixels = np.arange(2 * 784, dtype=np.uint8)
    content = gzip.compress(np.array([0x803, 2, 28, 28], ">u4").tobytes() + pixels.tobytes())
    for name in ("train-images-idx3-ubyte.gz", "t10k-images-idx3-ubyte.gz"):
        (tmp_path / name).write_bytes(content)
    fashion = read_fashion(tmp_path)
    assert fashion.test.shape == (2, 784)
    np.testing.assert_allclose(fashion.train.ravel() * 255, pixels, atol=1e-4)


@pytest.mark.parametrize("furniture", [None, some_vectors(30, 2, 40)])
def test_the_made_set_is_of_unit_length_and_a_prefix_of_every_larger_one(furniture):
    make = Recipe(some_vectors(300, dim=20), some_vectors(60, 1, 20), furniture, DIM)
    many = np.concatenate(list(make.rows(25_000)))
    assert many.shape == (25_000, DIM)
    np.testing.assert_allclose(np.linalg.norm(many, axis=1), 1, atol=1e-5)
    again = Recipe(some_vectors(300, dim=20), some_vectors(60, 1, 20), furniture, DIM)
    np.testing.assert_array_equal(np.concatenate(list(again.rows(12_345))), many[:12_345])
    queries = make.queries(41)
    assert queries.shape == (41, DIM)
    assert len(np.unique(np.concatenate([queries, many]), axis=0)) == len(queries) + len(np.unique(many, axis=0))


def test_a_made_set_comes_from_the_cache_the_second_time(tmp_path):
    make = Recipe(some_vectors(300, dim=20), some_vectors(60, 1, 20), None, DIM)
    first = made_set(make, 400, 50, tmp_path, queries=20)
    written = first.rows.stat().st_mtime_ns
    second = made_set(make, 400, 50, tmp_path, queries=20)
    assert second.rows.stat().st_mtime_ns == written
    np.testing.assert_array_equal(second.truth, first.truth)
    assert len(first.vectors()) == len(first.bucket) == 450
    assert first.truth.max() < 400


def test_attributes_pass_what_they_say(data):
    for values in (data.bucket, data.region):
        assert values.min() >= 0
        assert values.max() == PERMILLE - 1
    assert np.isclose((data.region[:ROWS] < 100).mean(), 0.1, atol=0.01)
    corner = data.vectors()[:ROWS][data.region[:ROWS] < 100]
    assert (corner @ corner.T).mean() > (data.vectors()[:ROWS] @ corner.T).mean()


@pytest.mark.parametrize("cosine", [True, False])
def test_exact_neighbours_are_those_of_brute_force(cosine):
    base, queries = some_vectors(500), some_vectors(7, 1)
    if not cosine:
        base, queries = base * np.arange(1, 501, dtype=np.float32)[:, np.newaxis], queries * 100
    rows = np.arange(0, 500, 3)
    found = exact_neighbours(base, queries, 5, cosine=cosine, rows=rows)
    for query, own in zip(queries, found, strict=True):
        distances = -(base[rows] @ query) if cosine else np.square(base[rows] - query).sum(axis=1)
        assert own.tolist() == rows[np.argsort(distances)[:5]].tolist()


def test_fewer_rows_than_wanted_are_padded():
    found = exact_neighbours(some_vectors(10), some_vectors(1, 1), 5, cosine=True, rows=np.array([4, 7]))
    assert sorted(found[0].tolist()) == [-1, -1, -1, 4, 7]


def test_recall_counts_by_distance_and_nothing_twice():
    base = np.array([[1, 0], [1, 0], [0.8, 0.6], [0, 1]], np.float32)
    query, truth = base[:1], np.array([[0, 2]])
    assert recall(base, query, truth, [[0, 2]], cosine=True) == 1.0
    assert recall(base, query, truth, [[1, 2]], cosine=True) == 1.0  # as near as row 0
    assert recall(base, query, truth, [[0, 0]], cosine=True) == 0.5
    assert recall(base, query, truth, [[0, 3]], cosine=True) == 0.5
    assert recall(base, query, truth, [[]], cosine=True) == 0.0
    assert recall(base, query, np.array([[-1, -1]]), [[]], cosine=True) == 1.0  # nothing was to be found
    with pytest.raises(ValueError, match="0 answers for 1"):
        recall(base, query, truth, [], cosine=True)


def test_speed_at_a_recall_lies_between_the_points_of_the_curve():
    rows = [
        {"recall": 0.98, "queries_per_s": 300.0},
        {"recall": 1.0, "queries_per_s": 100.0},
    ]
    assert speed_at(rows, 0.99) == 200.0
    assert speed_at(rows, 0.9) == 300.0
    assert speed_at(rows[:1], 0.99) is None


def test_a_straight_line_goes_through_the_last_two_sizes():
    rows = [
        {
            "rows": size,
            **dict.fromkeys(("seconds_to_sealed", "rss_mib", "disk_mib", "load_seconds", "p50_ms", "p99_ms"), value),
        }
        for size, value in ((100, 9.0), (200, 1.0), (400, 2.0))
    ]
    assert growth.extrapolate(rows, 1_000)["rss_mib"] == 5.0
    assert growth.extrapolate(rows[:1], 1_000) is None


def test_a_pause_is_booked_to_what_went_on_meanwhile():
    timeline = busy.Timeline(
        spans=[(busy.IDLE, 0.0, 10.0), (busy.WRITES, 10.0, 20.0), (busy.MERGE, 20.0, 30.0)],
        segments=[(0.0, 3, 0), (15.0, 4, 0), (16.0, 4, 0)],
    )
    calls = [busy.Outcome(second / 10, 0.002, 0.0, "") for second in range(300)]
    calls[150] = busy.Outcome(15.0, 0.200, 0.0, "")
    calls[199] = busy.Outcome(19.9, 0.300, 0.0, "")  # ends while it merges
    counts = [busy.Outcome(25.0, 0.050, 0.0, "")]
    found = busy.summarise({busy.SEARCHES: calls, busy.CALLS: counts}, timeline)
    assert found["activities"][busy.IDLE][busy.SEARCHES]["longest_ms"] == 2.0
    assert found["activities"][busy.WRITES][busy.SEARCHES]["longest_ms"] == 300.0
    assert found["activities"][busy.MERGE][busy.SEARCHES]["longest_ms"] == 300.0
    assert found["activities"][busy.MERGE][busy.CALLS]["longest_ms"] == 50.0
    assert found["pause_ms_max"] == 300.0
    assert found["busy_p99_ratio"] > 1.0
    assert found["timeline"]["segments"] == [(15.0, 4)]


def test_a_stream_at_full_speed_counts_for_pauses_alone():
    timeline = busy.Timeline(spans=[(busy.IDLE, 0.0, 10.0), (busy.WRITES, 10.0, 20.0), (busy.FULL_SPEED, 20.0, 30.0)])
    calls = [busy.Outcome(second / 10, 0.050 if second > 200 else 0.002, 0.0, "") for second in range(300)]
    found = busy.summarise({busy.SEARCHES: calls}, timeline)
    assert found["activities"][busy.FULL_SPEED][busy.SEARCHES]["p99_ms"] == 50.0
    assert found["busy_p99_ratio"] == 1.0
    assert found["pause_ms_max"] == 50.0


@pytest.mark.slow
async def test_rounds_compare_the_service_with_hnswlib_itself(bench, data, shard, tmp_path):
    changes = []
    async with (
        Child("bench.peers.hnswlib_bare", tmp_path / "hnswlib.log") as child,
        empty_server(tmp_path, bench.cores.server) as empty,
    ):
        bare = HnswlibBare(child, bench, data)
        assert (await bare.build(1))["seconds"] >= 0
        comparison = Comparison(
            bench, data, {"vitrine": Ours(shard.address)}, bare, {"empty": empty}, lambda: changes.append(1)
        )
        await comparison.run()
    result = json.loads(json.dumps(comparison.result))
    assert changes
    assert result["recall"]["vitrine"] > 0.9
    assert result["recall"]["hnswlib"] > 0.9
    assert set(result["rates"]["vitrine"]) == {"c1", "c8", "batch100"}
    assert result["batch_over_hnswlib"] > 0
    assert result["qps_over_milvus_c8"] is None
    assert set(result["rates"]["empty"]) == {"c1", "c8"}
    assert 0 < result["c8_over_ceiling"] < 2
    assert [row["ef"] for row in result["curve"]["vitrine"]] == [16, 64]


@pytest.mark.slow
async def test_filters_are_held_against_the_exact_answer(bench, data, shard):
    found = await filters.measure(bench, data, {"vitrine": Ours(shard.address)})
    assert [row["percent"] for row in found["rows"]["vitrine"]["uniform"]] == [100, 50, 20, 10, 5, 2, 1, 0.1]
    assert [row["passing"] for row in found["rows"]["vitrine"]["correlated"]][:3] == [ROWS, ROWS // 2, ROWS // 5]
    assert all(row["answers_short_of_k"] == 0 for rows in found["rows"]["vitrine"].values() for row in rows)
    assert found["recall_min"]["vitrine"] > 0.9


@pytest.mark.slow
async def test_probes_go_on_while_points_are_written_and_found(bench, data, shard):
    found = await busy.measure(bench, data, shard)
    assert found["activities"][busy.IDLE][busy.SEARCHES]["calls"] >= 20
    assert found["activities"][busy.WRITES][busy.CALLS]["calls"] >= 40
    assert found["pause_ms_max"] > 0
    assert found["written_per_s"] > 0
    # Every second write was over an older point.
    assert await shard.count() == ROWS + BRIEF.writes_per_s * BRIEF.busy_seconds / 2
    fresh = await busy.freshness(bench, data, shard)
    assert fresh["beside_writes"]["found_p99_ms"] >= fresh["beside_writes"]["ack_p50_ms"] > 0


@pytest.mark.slow
async def test_a_killed_shard_is_back_with_all_its_points(bench, data, shard):
    found = await recovery.measure(bench, data, shard)
    assert len(found["killed_to_serving_s"]) == BRIEF.rounds
    assert found["points"] >= ROWS
    weight = await shard.weight()
    assert weight["rss_mib"] > 0
    assert weight["disk_bytes_per_vector"] > 4 * DIM


@pytest.mark.slow
async def test_a_refused_search_fails_the_measurement(bench, data, shard):
    (request,) = wire.search_requests(some_vectors(1, dim=DIM + 1), ef=64)
    with pytest.raises(RuntimeError, match="INVALID_ARGUMENT"):
        await bench.closed(Ours(shard.address), bench.prepared([request], "wrong"), 1, 0.2)
    with pytest.raises(ChildError, match="INVALID_ARGUMENT"):
        await bench.once(Ours(shard.address), [request])


@pytest.mark.slow
async def test_a_run_keeps_what_it_finds_and_says_what_it_did_not_measure(tmp_path, monkeypatch):
    monkeypatch.setattr("bench.peers.milvus.missing", lambda: "left out here")
    out = tmp_path / "out"
    benchmark = Benchmark(
        SmallSources(tmp_path / "data"),
        ("made", "filters", "freshness", "growth"),
        BRIEF,
        lambda line: None,
        out,
        SMALL,
    )
    await benchmark.run()
    result = json.loads((out / RESULT_FILE).read_text())
    assert result["complete"]
    assert set(KEYS) <= set(result)
    assert result["recall_unfiltered"] > 0.9
    assert result["recall_filtered_min"] > 0.9
    assert result["freshness_p99_s"] > 0
    assert result["qps_over_milvus_c8"] is None
    assert 0 < result["c8_over_ceiling"] < 2
    assert result["pause_ms_max"] is None
    assert result["notes"] == ["Milvus not measured: left out here"]
    assert [row["rows"] for row in result["growth"]["rows"]] == [300, 600]
    assert result["growth"]["extrapolated"]["rows"] == 1_000_000

    pytest.importorskip("matplotlib", reason="plots need matplotlib (requirements/bench.txt)")
    page = tmp_path / PAGE
    page.write_text(f"# before\n{BEGIN}\nold figures\n{END}\nafter\n")
    written = write_report(out / RESULT_FILE, tmp_path)
    assert "old figures" not in page.read_text()
    assert "`recall_filtered_min`" in page.read_text()
    assert [path.name for path in written] == [PAGE, "index-recall-speed.png", "index-filters.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in written[1:])
