"""The benchmark's own parts, on real processes with a tiny model. What they measure is not tested, that they do is."""

import json

import numpy as np
import pytest

from bench.embedder.child import Child, ChildError
from bench.embedder.images import make_images
from bench.embedder.report import BEGIN, END, write_report
from bench.embedder.running import KEYS, RESULT_FILE, Benchmark
from bench.embedder.servers import Servers
from bench.embedder.setup import Pace
from bench.peers.work import PeerSettings
from models.card import load_card
from vitrine.v1 import embedder_pb2

# Nothing to measure at start; one image at a time, so that a queue fills up.
SLOW = {"lanes": 1, "intra_op_threads": 1, "max_batch": 1}
BRIEF = Pace(
    rounds=1,
    callers=(1, 32),
    seconds=0.4,
    bare_seconds=0.3,
    choose_seconds=0.0,
    interactive_seconds=0.4,
    ramp_seconds=0.3,
    overload_seconds=0.5,
    recovery_seconds=1.2,
    overload_rounds=1,
    other_clients=True,
    patience_seconds=0.0,
)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    make_images(folder, count=8)
    return folder


@pytest.fixture
def files(images, tiny_model):
    return {"images": str(images), "dim": load_card(tiny_model).outputs.embedding.dim}


@pytest.fixture
def servers(images, tiny_model, tmp_path):
    return Servers(tiny_model, (images / "000.jpg").read_bytes(), load_card(tiny_model).outputs.embedding.dim, tmp_path)


@pytest.fixture
def load(tmp_path):
    return Child("bench.embedder.load", tmp_path / "load.log")


def test_images_are_the_same_every_time_and_as_large_as_photos(images, tmp_path):
    make_images(tmp_path, count=8)
    for path in sorted(images.iterdir()):
        data = path.read_bytes()
        assert data == (tmp_path / path.name).read_bytes()
        assert 40_000 < len(data) < 200_000


async def test_the_bare_loop_and_every_grpc_client_get_the_same_vector(servers, load, files, tiny_model, tmp_path):
    async with servers, load, Child("bench.embedder.bare", tmp_path / "bare.log") as bare:
        server = await servers.embedder("embedder", **SLOW)
        targets = (server.target(), server.rpc_target(), server.grpc_target())
        answers = [await load.do(mode="vector", **target, **files) for target in targets]
        reference = await bare.do(model_dir=str(tiny_model), precision="fp32", vector=True, images=files["images"])
        rate = await bare.do(
            model_dir=str(tiny_model), precision="fp32", images=files["images"], lanes=2, batch=2, seconds=0.3
        )
    expected = np.frombuffer(bytes.fromhex(reference["body"]), "<f4")
    for answer in answers:
        vector = embedder_pb2.EmbedResponse.FromString(bytes.fromhex(answer["body"])).results[0].vector
        np.testing.assert_allclose(np.frombuffer(vector.data, "<f4"), expected, atol=1e-5)
    assert rate["per_s"] > 0
    assert len(rate["latencies"]) * 2 / 0.3 == pytest.approx(rate["per_s"])


@pytest.mark.parametrize("way", ["target", "rpc_target"])
async def test_closed_loops_count_answers(servers, load, files, way):
    async with servers, load:
        server = await servers.embedder("embedder", **SLOW)
        # 16 callers: together more than one HTTP/2 window, so that the lean client has to wait for room.
        job = {"mode": "closed", "callers": 16, "seconds": 0.5, "warm_seconds": 0.2, **getattr(server, way)(), **files}
        run = await load.do(**job)
    assert run["refused"] == {}
    assert run["per_s"] == len(run["latencies"]) / 0.5 > 0
    assert all(0 < each < 30 for each in run["latencies"])
    assert run["client_cpu_ms"] > 0


async def test_overload_is_seen_as_refusals_with_advice(servers, load, files):
    burst = {"mode": "open", "segments": [(50, 0.2), (3000, 0.2)], "deadline": 10, "seed": 7}
    async with servers, load:
        server = await servers.embedder("embedder", interactive_queue_items=1, max_images_per_request=1, **SLOW)
        run = await load.do(**burst, **server.target(), **files)
        again = await load.do(**burst, **server.grpc_target(), **files)
    planned = sorted(each[0] for each in run["outcomes"])
    assert planned == sorted(each[0] for each in again["outcomes"])  # the seed decides who comes when
    assert sum(each < 0.2 for each in planned) < sum(each >= 0.2 for each in planned)
    for found in (run, again):
        assert {code for _, _, code, _ in found["outcomes"]} == {"OK", "RESOURCE_EXHAUSTED"}
        assert all(advice for _, _, code, advice in found["outcomes"] if code == "RESOURCE_EXHAUSTED")
        assert len(found["lateness"]) == len(found["outcomes"])


async def test_the_lean_client_tells_refusals_and_deadlines_apart(servers, load, files, tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "000.jpg").write_bytes(b"no picture")
    hopeless = {"mode": "open", "segments": [(200, 0.2)], "deadline": 0.001, "seed": 1}
    async with servers, load:
        server = await servers.embedder("embedder", **SLOW)
        late = await load.do(**hopeless, **server.target(), **files)
        bad = await load.do(
            mode="closed",
            callers=1,
            seconds=0.3,
            warm_seconds=0.1,
            **server.target(),
            images=str(tmp_path / "images"),
            dim=files["dim"],
        )
        after = await load.do(mode="vector", **server.target(), **files)
    assert "DEADLINE_EXCEEDED" in {code for _, _, code, _ in late["outcomes"]}
    assert set(bad["refused"]) == {"image refused"}
    assert bad["latencies"] == []
    assert after["body"]


async def test_bulk_streams_are_counted(servers, load, files):
    async with servers, load:
        server = await servers.embedder("embedder", **SLOW)
        run = await load.do(mode="stream", seconds=0.5, **server.grpc_target(), **files)
    assert run["per_s"] > 0
    assert run["failed"] == 0


async def test_a_failed_job_says_why(load, files):
    async with load:
        with pytest.raises(ChildError, match="mode 'sideways'"):
            await load.do(mode="sideways", protocol="grpc", address="127.0.0.1:1", **files)


@pytest.mark.parametrize("name", ["mosec", "litserve"])
async def test_peers_do_the_same_work(name, servers, load, files, tmp_path, tiny_model):
    pytest.importorskip(name, reason="not in this environment: requirements/bench.txt")
    async with servers, load, Child("bench.embedder.bare", tmp_path / "bare.log") as bare:
        peer = await servers.peer(name, PeerSettings("", workers=1, max_batch=4))
        with peer.awake():
            answer = await load.do(mode="vector", **peer.target(), **files)
            run = await load.do(mode="closed", callers=4, seconds=0.3, warm_seconds=0.2, **peer.target(), **files)
        reference = await bare.do(model_dir=str(tiny_model), precision="fp32", vector=True, images=files["images"])
    expected = np.frombuffer(bytes.fromhex(reference["body"]), "<f4")
    np.testing.assert_allclose(np.frombuffer(bytes.fromhex(answer["body"]), "<f4"), expected, atol=1e-5)
    assert run["per_s"] > 0


@pytest.mark.slow
async def test_a_peer_is_measured_in_both_deployments(tiny_model, tmp_path):
    pytest.importorskip("mosec", reason="not in this environment: requirements/bench.txt")
    benchmark = Benchmark(tiny_model, ("service", "mosec"), BRIEF, lambda line: None, tmp_path / "out", SLOW)
    await benchmark.run()
    throughput, ratios = benchmark.result["throughput"], benchmark.result["ratios"]
    for own, other in (("1", "32"), ("32", "1")):
        deployment = f"mosec_deployed_for_{own}"
        assert set(throughput[deployment]) == {other}
        assert throughput[deployment][other]["layout"] == throughput["mosec"][own]["layout"]
        assert throughput[deployment][other]["layout"] != throughput["mosec"][other]["layout"]
        assert ratios[f"over_{deployment}"][other] > 0
    assert benchmark.result["over_mosec"] == min(ratios["over_mosec"].values())


@pytest.mark.slow
async def test_a_whole_run_has_the_keys_and_makes_the_page(tiny_model, tmp_path):
    pytest.importorskip("matplotlib", reason="not in this environment: requirements/bench.txt")
    said = []
    parts = ("bare", "service", "interactive", "overload")
    benchmark = Benchmark(tiny_model, parts, BRIEF, said.append, tmp_path / "out", SLOW)
    await benchmark.run()
    result = json.loads((tmp_path / "out" / RESULT_FILE).read_text())
    assert result == json.loads(json.dumps(benchmark.result))
    assert result["complete"]
    assert result["defaults"]["lanes"] == 1
    assert set(KEYS) <= set(result)
    assert result["service_over_bare"] == min(result["ratios"]["service_over_bare"].values())
    assert result["over_mosec"] is None  # its part did not run
    assert result["interactive_p99_ratio"] == result["interactive"]["ratio"]
    assert result["overload_p99_ratio"] == result["overload"]["ratio"] > 0

    (tmp_path / "performance.md").write_text(f"# before\n{BEGIN}\nold figures\n{END}\nafter\n")
    page, plot = write_report(tmp_path / "out" / RESULT_FILE, tmp_path)
    text = page.read_text()
    assert "old figures" not in text
    assert text.startswith("# before\n")
    assert text.endswith("after\n")
    assert "`service_over_bare`" in text
    assert plot.read_bytes().startswith(b"\x89PNG")
