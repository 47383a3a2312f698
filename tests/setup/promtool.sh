#!/usr/bin/env bash
# Fetches promtool, Prometheus' own tool, by which the tests try the chart's alerts: out of Debian's package prometheus, of
# which nothing is installed. It goes to .cache/promtool/. Does nothing when it is there or promtool is on the PATH; needs
# root, or sudo, only where apt's lists have to be brought up to date.
set -euo pipefail

fail() {
    echo "tests/setup/promtool.sh: $*" >&2
    exit 1
}

cache=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/.cache/promtool
if [ -x "$cache/promtool" ] || command -v promtool >/dev/null; then
    exit 0
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "this is no Debian (there is no apt-get); put promtool on the PATH by your own means"

mkdir -p "$cache"
exec 9>"$cache/.lock"
flock 9 # two at once would be in each other's way
[ ! -x "$cache/promtool" ] || exit 0
making=$(mktemp -d "$cache/making.XXXXXX")
trap 'rm -rf "$making"' EXIT

echo "fetching promtool: 20 MB, this once"
download() {
    (cd "$making" && apt-get download -qq prometheus) >"$making/log" 2>&1
}
update() {
    if [ "$(id -u)" -eq 0 ]; then apt-get update -qq; else sudo apt-get update -qq; fi
}
# The lists may be missing or old: bring them up to date once, and try again.
download || { update >"$making/log" 2>&1 && download; } ||
    fail "could not download Debian's package prometheus: $(tail -5 "$making/log")"
dpkg-deb --fsys-tarfile "$making"/prometheus_*.deb | tar -x -C "$making" ./usr/bin/promtool ||
    fail "Debian's package prometheus has no promtool; put it on the PATH by your own means"
# Whole or not at all.
mv "$making/usr/bin/promtool" "$cache/promtool"
