"""What the Kubernetes manifests say is what the code has: settings, ports, probes, names, metrics, time to drain."""

import importlib.util
import re
import shlex

import pytest
import typer
import yaml

from deploy.k8s import rules
from services.local.stack import ROOT
from services.runtime.listening import check_listening
from services.runtime.settings import SettingsError
from tests.deploy.manifests import K8S, OVERLAYS, SERVICES, Manifests
from tests.deploy.names import known_names, names_in
from vitrine.cli.app import app

SECURED = [name for name in OVERLAYS if name.startswith("prod")]
_rendered = {}


def manifests_of(folder):
    if folder not in _rendered:
        _rendered[folder] = Manifests(K8S / folder)
    return _rendered[folder]


@pytest.fixture(params=OVERLAYS)
def manifests(request):
    return manifests_of(f"overlays/{request.param}")


@pytest.fixture(params=SECURED)
def secured(request):
    return manifests_of(f"overlays/{request.param}")


@pytest.fixture(params=SERVICES)
def service(request):
    return request.param


def test_a_container_runs_a_module_that_is_there(manifests, service):
    option, module = manifests.container(service)["args"]
    assert (option, module) == ("-m", f"services.{service}")
    assert importlib.util.find_spec(f"{module}.__main__") is not None


def test_the_service_takes_its_settings_and_would_listen(manifests, service, monkeypatch):
    settings = manifests.settings(service, monkeypatch)  # names and values
    check_listening(settings)
    assert settings.host == settings.metrics_host == "0.0.0.0"
    # Kubernetes' own variables for a Service called vitrine-gateway would be taken for settings, and refused.
    assert manifests.pod(service)["enableServiceLinks"] is False


def test_the_base_alone_is_refused_by_every_service(service, monkeypatch):
    with pytest.raises(SettingsError, match="open to other machines"):
        check_listening(manifests_of("base").settings(service, monkeypatch))


def test_only_the_desk_is_without_tls_and_callers(secured, service, monkeypatch):
    settings = secured.settings(service, monkeypatch)
    assert not settings.insecure_listen
    assert settings.tls_cert_file
    assert settings.tls_key_file
    assert settings.auth_file
    if service != "indexer":
        assert settings.peer_ca_file
        assert settings.peer_token_file


def test_every_file_that_settings_name_is_in_a_volume(secured, service):
    mounts = [each["mountPath"] for each in secured.container(service)["volumeMounts"]]
    volumes = [each["name"] for each in secured.pod(service)["volumes"]]
    volumes += [
        each["metadata"]["name"] for each in secured.workload(service)["spec"].get("volumeClaimTemplates") or ()
    ]
    assert sorted(each["name"] for each in secured.container(service)["volumeMounts"]) == sorted(volumes)
    paths = [value for value in secured.environment(service).values() if value.startswith("/")]
    assert paths
    for path in paths:
        assert any(path.startswith(f"{mount}/") for mount in mounts), path


def test_ports_and_probes_are_the_services(manifests, service, monkeypatch):
    settings = manifests.settings(service, monkeypatch)
    container = manifests.container(service)
    expected = {"grpc": settings.port, "metrics": settings.resolved_metrics_port, "health": settings.health_port}
    if service == "gateway":
        expected["http"] = settings.http_port
    assert {each["name"]: each["containerPort"] for each in container["ports"]} == expected
    assert settings.port == SERVICES[service][0].model_fields["port"].default
    (name,) = SERVICES[service][1].grpc_services
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] == {"port": settings.health_port, "service": name}
    assert container["livenessProbe"]["failureThreshold"] * container["livenessProbe"]["periodSeconds"] >= 60


def test_a_pod_has_time_to_drain(manifests, service, monkeypatch):
    settings = manifests.settings(service, monkeypatch)
    grace = manifests.pod(service)["terminationGracePeriodSeconds"]
    assert grace >= settings.drain_delay_seconds + settings.drain_seconds + 10


def test_services_lead_to_ports_of_pods(manifests):
    for each in manifests.all("Service"):
        service = each["spec"]["selector"]["app.kubernetes.io/name"].removeprefix("vitrine-")
        ports = {port["name"]: port["containerPort"] for port in manifests.container(service)["ports"]}
        for port in each["spec"]["ports"]:
            assert port["port"] == ports[port["targetPort"]], each["metadata"]["name"]
            # gRPC balances at the client, which must see every pod.
            assert (port["name"] == "grpc") == (each["spec"].get("clusterIP") == "None")


def test_peers_are_addressed_by_names_that_exist(manifests, monkeypatch):
    gateway, embedder = (manifests.settings(name, monkeypatch) for name in ("gateway", "embedder"))
    shards = manifests.workload("indexer")["spec"]
    governing = manifests.get("Service", shards["serviceName"])
    assert governing["spec"]["publishNotReadyAddresses"] is True
    port = governing["spec"]["ports"][0]["port"]
    expected = [f"vitrine-indexer-{index}.{shards['serviceName']}:{port}" for index in range(shards["replicas"])]
    assert gateway.indexers == embedder.indexers == expected
    host, _, port = gateway.embedder.partition(":")
    assert manifests.get("Service", host)["spec"]["ports"][0]["port"] == int(port)


def test_certificates_bear_the_names_that_callers_use(secured, monkeypatch):
    gateway = secured.settings("gateway", monkeypatch)
    for service, addresses in (("embedder", [gateway.embedder]), ("indexer", gateway.indexers)):
        certificate = secured.get("Certificate", f"vitrine-{service}")["spec"]
        assert {each.partition(":")[0] for each in addresses} <= set(certificate["dnsNames"])
        assert certificate["secretName"] in {
            each["secret"]["secretName"] for each in secured.pod(service)["volumes"] if "secret" in each
        }


def test_selectors_find_pods(manifests):
    labels = [
        manifests.workload(service)["spec"]["template"]["metadata"]["labels"] | {"service": service}
        for service in SERVICES
    ]
    own = [each["spec"]["selector"]["matchLabels"] for each in manifests.all("PodDisruptionBudget", "PodMonitor")]
    for policy in manifests.all("NetworkPolicy"):
        rules = policy["spec"].get("ingress", []) + policy["spec"].get("egress", [])
        peers = [peer for rule in rules for peer in rule.get("from", []) + rule.get("to", [])]
        own += [
            selector["podSelector"]["matchLabels"]
            for selector in [policy["spec"], *peers]
            if selector.get("podSelector")
            and selector["podSelector"]["matchLabels"].get("vitrine.dev/role") != "catalogue-job"
        ]
        ports = {port["port"] for rule in rules for port in rule["ports"] if isinstance(port["port"], str)}
        assert ports <= {"grpc", "http", "metrics"}
    assert own
    for selector in own:
        assert any(selector.items() <= each.items() for each in labels), selector
    for each in manifests.all("HorizontalPodAutoscaler", "ScaledObject"):
        manifests.get("Deployment", each["spec"]["scaleTargetRef"]["name"])
    for service in SERVICES:
        manifests.get("PriorityClass", manifests.pod(service)["priorityClassName"])


def test_each_shard_on_milvus_has_a_database_of_its_own_and_keeps_nothing(monkeypatch):
    milvus = manifests_of("overlays/prod-milvus")
    settings = milvus.settings("indexer", monkeypatch)
    assert settings.engine == "milvus"
    assert settings.milvus_database == "vitrine_shard_1"
    assert settings.data_dir is None
    assert not milvus.workload("indexer")["spec"].get("volumeClaimTemplates")


def test_the_gpu_is_asked_for_where_it_is_used(monkeypatch):
    for name in OVERLAYS:
        each = manifests_of(f"overlays/{name}")
        asked = "nvidia.com/gpu" in each.container("embedder")["resources"]["limits"]
        assert asked == (each.settings("embedder", monkeypatch).provider != "cpu") == (name == "prod-gpu")


def test_the_embedder_scales_by_series_that_are_exported(secured):
    (trigger,) = secured.get("ScaledObject", "vitrine-embedder")["spec"]["triggers"]
    names = names_in(trigger["metadata"]["query"])
    assert names
    assert names <= known_names()


def test_the_operator_gets_the_same_rules_and_job_names(secured):
    assert rules.FILE.read_text() == rules.render(), "run `python -m deploy.k8s.rules`"
    label = secured.get("PodMonitor", "vitrine")["spec"]["jobLabel"]
    jobs = {secured.workload(each)["spec"]["template"]["metadata"]["labels"][label] for each in SERVICES}
    example = yaml.safe_load((ROOT / "deploy" / "prometheus" / "prometheus.yml").read_text())
    assert jobs == {each["job_name"] for each in example["scrape_configs"]}


def test_the_snapshot_job_calls_a_command_that_exists(monkeypatch):
    job = yaml.safe_load((K8S / "examples" / "snapshot.yaml").read_text())["spec"]["jobTemplate"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    executable, program, command, *rest = shlex.split(container["args"][0])
    assert (executable, program) == ("exec", "vitrine")
    cli = typer.main.get_command(app)
    options = {option for each in cli.commands[command].params for option in each.opts}
    assert {each for each in rest if each.startswith("--")} <= options
    variables = {each.envvar for each in cli.params if each.envvar}
    assert {each["name"] for each in container["env"]} <= variables
    addresses = next(each["value"] for each in container["env"] if each["name"] == "VITRINE_CLI_INDEXERS")
    assert addresses.split(",") == manifests_of("overlays/prod").settings("gateway", monkeypatch).indexers


def test_images_are_those_that_the_dockerfile_makes():
    text = (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
    built = dict(re.findall(r"-t (vitrine:\w+)(?: +--build-arg PACKAGES=(\w+|\"[\w ]+\"))?", text))
    for packages in built.values():
        for each in packages.strip('"').split() or ["cpu"]:
            assert (ROOT / "requirements" / f"{each}.txt").is_file()
    used = {manifests_of(f"overlays/{name}").container(service)["image"] for name in OVERLAYS for service in SERVICES}
    assert used == set(built)
    (user,) = re.findall(r"^USER (\d+):\d+$", text, re.MULTILINE)
    for service in SERVICES:
        assert manifests_of("base").pod(service)["securityContext"]["runAsUser"] == int(user)
    for line in re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE):
        for pattern in line.split():
            assert list(ROOT.glob(pattern)), pattern
