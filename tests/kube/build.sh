#!/usr/bin/env bash
# Builds the Kubernetes control plane that the tests run against, and the tools that talk to it, from the versions in
# go.mod: etcd, kube-apiserver, kube-controller-manager, kubectl, helm. They are plain programs; no container runs.
#
#   build.sh           builds what is missing: some six minutes on two cores the first time, nothing after that
#   build.sh --where   prints the folder that they are in, or would be in, and builds nothing
#
# They are kept in .cache/kube/<hash of go.mod, go.sum and this file>/bin, so a change of version builds anew. What the
# folder KUBEBUILDER_ASSETS holds, if that is set, is used from there and not built.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/kube
made_from=$(cd "$here" && cat go.mod go.sum build.sh | sha256sum | cut -c 1-16)
bin=$cache/$made_from/bin

fail() {
    echo "tests/kube/build.sh: $*" >&2
    exit 1
}

case ${1-} in
--where)
    echo "$bin"
    exit
    ;;
'') ;;
*) fail "unknown argument $1; there is only --where" ;;
esac

declare -A packages=(
    [etcd]=go.etcd.io/etcd/server/v3
    [helm]=helm.sh/helm/v4/cmd/helm
    [kube-apiserver]=k8s.io/kubernetes/cmd/kube-apiserver
    [kube-controller-manager]=k8s.io/kubernetes/cmd/kube-controller-manager
    [kubectl]=k8s.io/kubernetes/cmd/kubectl
)

# What is neither given nor built. A program is put into the folder whole (by a rename), so one that is there is done.
list_missing() {
    local program
    for program in "${!packages[@]}"; do
        [ -x "${KUBEBUILDER_ASSETS:-/nonexistent}/$program" ] || [ -x "$bin/$program" ] || echo "$program"
    done | sort
}

[ -z "${KUBEBUILDER_ASSETS:-}" ] || [ -d "$KUBEBUILDER_ASSETS" ] ||
    fail "KUBEBUILDER_ASSETS is $KUBEBUILDER_ASSETS, which is no folder"
[ -n "$(list_missing)" ] || exit 0

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9 # two at once would build the same twice
mapfile -t missing < <(list_missing)
[ ${#missing[@]} -gt 0 ] || exit 0

command -v go >/dev/null ||
    fail "Go is not installed, so ${missing[*]} cannot be built; install Go $(sed -n 's/^go //p' "$here/go.mod") or newer"

# On the file system of the folder that all ends in, so that a rename is whole or not at all.
rm -rf "$cache"/making.*
making=$(mktemp -d "$cache/making.XXXXXX")
trap 'rm -rf "$making"' EXIT

# What the programs say of themselves must be what go.mod says: clients compare versions.
version_of() {
    awk -v module="$1" '$1 == module && $2 ~ /^v/ { print $2; exit }' "$here/go.mod"
}
kubernetes=$(version_of k8s.io/kubernetes)
IFS=. read -r major minor _ <<<"${kubernetes#v}"
component=k8s.io/component-base/version
flags="-s -w -X $component.gitVersion=$kubernetes -X $component.gitMajor=$major -X $component.gitMinor=$minor"
flags+=" -X helm.sh/helm/v4/internal/version.version=$(version_of helm.sh/helm/v4)"

build() {
    local program wanted=()
    for program in "$@"; do wanted+=("${packages[$program]}"); done
    cd "$here"
    # The environment of whoever calls may ask for another machine, a workspace or a vendor folder.
    unset GOOS GOARCH
    export CGO_ENABLED=0 GOFLAGS=-mod=readonly GOWORK=off GOBIN=$making
    # In a process group of its own, which can be ended as a whole.
    exec setsid nice go install -v -trimpath -buildvcs=false -ldflags "$flags" "${wanted[@]}"
}

echo "building ${missing[*]} of Kubernetes $kubernetes: some minutes, this once"
log=$making/log
build "${missing[@]}" >"$log" 2>&1 9>&- &
builder=$!
# An interruption must end the compiler too, not only this script.
trap 'kill -- "-$builder" 2>/dev/null || true; wait "$builder" 2>/dev/null || true; rm -rf "$making"' EXIT
trap 'exit 130' INT TERM HUP
while kill -0 "$builder" 2>/dev/null; do
    [ ! -t 1 ] || printf '\r%d packages ' "$(wc -l <"$log")"
    sleep 1
done
[ ! -t 1 ] || printf '\r\033[K'
wait "$builder" || fail "the build failed:"$'\n'"$(grep -v -E '^[a-z0-9.-]+(/[A-Za-z0-9._-]+)*$' "$log" | tail -20)"

mkdir -p "$bin"
for program in "${missing[@]}"; do
    made=$making/$(basename "${packages[$program]}")
    # Its folder is called server/v3, and Go names a program after the last part that is no version.
    [ "$program" = etcd ] && made=$making/server
    mv "$made" "$bin/$program"
done
# Those of other versions are of no more use: 400 MB each.
find "$cache" -mindepth 1 -maxdepth 1 -type d ! -name "$made_from" -exec rm -rf {} +
