#!/usr/bin/env bash
# `make policy`: every overlay as kubectl renders it, and every example, against the schemas of the newest Kubernetes that
# kubernetes-validate knows (kinds of operators have none there) and against checkov's policies; Dockerfiles against
# hadolint. Takes the folder of the tools.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=$1
command -v kubectl >/dev/null || { echo "kubectl is not installed (Debian: apt-get install kubernetes-client)" >&2; exit 1; }
rendered=$(mktemp -d)
trap 'rm -rf "$rendered"' EXIT
for overlay in deploy/k8s/overlays/*/; do
    kubectl kustomize "$overlay" >"$rendered/$(basename "$overlay").yaml" 2> >(grep -v 'is deprecated' >&2)
done
cp deploy/k8s/examples/*.yaml "$rendered"
"$bin/kubernetes-validate" --strict --quiet --no-warn "$rendered"/*.yaml
"$bin/checkov" --config-file deploy/k8s/.checkov.yaml --directory "$rendered"
"$bin/hadolint" deploy/docker/Dockerfile
echo "policy: $(ls "$rendered" | wc -l) sets of manifests and the Dockerfile are sound"
