"""Kubernetes manifests as kubectl renders them, and the settings that their containers get."""

import re
import shutil
import subprocess

import yaml

from services.embedder.__main__ import Embedder
from services.embedder.settings import EmbedderSettings
from services.gateway.__main__ import Gateway
from services.gateway.settings import GatewaySettings
from services.indexer.app import IndexerApplication
from services.indexer.settings import IndexerSettings
from services.local.stack import ROOT
from services.runtime.settings import load_settings
from tests.conftest import missing

K8S = ROOT / "deploy" / "k8s"
OVERLAYS = sorted(path.name for path in (K8S / "overlays").iterdir())
SERVICES = {
    "gateway": (GatewaySettings, Gateway),
    "embedder": (EmbedderSettings, Embedder),
    "indexer": (IndexerSettings, IndexerApplication),
}
_ORDINAL = "1"  # of the pod that a test stands in for


class Manifests:
    """The objects of one overlay."""

    def __init__(self, folder):
        if shutil.which("kubectl") is None:
            missing("kubernetes-client")
        done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.objects = list(yaml.safe_load_all(done.stdout))

    def all(self, *kinds):
        return [each for each in self.objects if each["kind"] in kinds]

    def get(self, kind, name):
        (found,) = [each for each in self.all(kind) if each["metadata"]["name"] == name]
        return found

    def workload(self, service):
        """The Deployment or StatefulSet of a service."""
        (found,) = [
            each for each in self.all("Deployment", "StatefulSet") if each["metadata"]["name"] == f"vitrine-{service}"
        ]
        return found

    def pod(self, service):
        return self.workload(service)["spec"]["template"]["spec"]

    def container(self, service):
        (found,) = self.pod(service)["containers"]
        return found

    def environment(self, service):
        """The variables that a container gets, references resolved as Kubernetes does: in their order."""
        found = {}
        for each in self.container(service)["env"]:
            if "value" in each:
                value = re.sub(r"\$\((\w+)\)", lambda match: found.get(match[1], match[0]), each["value"])
            elif "configMapKeyRef" in each["valueFrom"]:
                reference = each["valueFrom"]["configMapKeyRef"]
                value = self.get("ConfigMap", reference["name"])["data"][reference["key"]]
            else:
                path = each["valueFrom"]["fieldRef"]["fieldPath"]
                assert path == "metadata.labels['apps.kubernetes.io/pod-index']", path
                value = _ORDINAL
            assert isinstance(value, str), f"{each['name']} is not text: the cluster refuses it"
            found[each["name"]] = value
        return found

    def settings(self, service, monkeypatch):
        """What the service makes of its variables.

        Raises:
            SettingsError: It would not start.
        """
        with monkeypatch.context() as patch:
            for name, value in self.environment(service).items():
                patch.setenv(name, value)
            return load_settings(SERVICES[service][0])
