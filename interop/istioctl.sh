#!/usr/bin/env bash
# Puts into FOLDER, as bin/istioctl, Istio's own reader of config dumps, built from the source of one version with Go 1.26.
# Quick when it is there; else some ten minutes of two cores and 3 GB of Go's caches. .ci/run --all calls it by way of the harness.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
# 1.31. Its go.sum says what everything that goes into it has to be.
version=v0.0.0-20260827124520-eed52ebb66ad
"$here/tools.sh" "$folder"
exec 9>"$folder/lock"
flock 9

go=$(command -v go || true)
[[ -n $go && $("$go" version) =~ go1\.(2[6-9]|[3-9][0-9]) ]] || go=$folder/bin/go
there() { "$go" version -m "$folder/bin/istioctl" 2>/dev/null | grep -q "istio.io/istio[[:space:]]*$version"; }
there || GOBIN=$folder/bin GOFLAGS="-p=2 -trimpath -buildvcs=false" nice "$go" install -ldflags "-s -w" "istio.io/istio/istioctl/cmd/istioctl@$version"
there || { echo "no istioctl of $version in $folder/bin" >&2; exit 1; }
