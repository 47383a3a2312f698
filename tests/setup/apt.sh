#!/usr/bin/env bash
# Installs the Debian packages that the tests need: redis-server and rabbitmq-server (brokers), util-linux (setpriv,
# setsid, flock), openssl (certificates for the TLS tests), musl-tools (the static binary), python3-venv. Does nothing, and
# needs neither root nor network, when all of it is there.
set -euo pipefail

fail() {
    echo "tests/setup/apt.sh: $*" >&2
    exit 1
}

missing=()
need() { # need <package> <command that shows it is there>...
    local package=$1
    shift
    "$@" >/dev/null 2>&1 || missing+=("$package")
}
need redis-server redis-server --version
need redis-tools redis-cli --version
need rabbitmq-server test -x /usr/lib/rabbitmq/bin/rabbitmq-server -a -x /usr/bin/epmd
need util-linux setpriv --version
need openssl openssl version
need procps ps --version
need musl-tools musl-gcc --version
need python3 "${PYTHON:-python3}" --version
need python3-venv "${PYTHON:-python3}" -c 'import ensurepip, venv'

if [ ${#missing[@]} -eq 0 ]; then
    exit 0
fi

command -v apt-get >/dev/null ||
    fail "this is no Debian (there is no apt-get); install these by your own means: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || fail "need root to install ${missing[*]}: run as root, or install sudo"
    as_root=(sudo)
fi

# Debian starts a server as it installs it. Ours are started by the tests, on ports of their own; those on 6379 and 5672
# would be in nobody's way but of no use either. policy-rc.d is Debian's own means to say no; one that exists is left
# alone.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
    "${as_root[@]}" chmod 755 "$policy"
    trap '"${as_root[@]}" rm -f "$policy"' EXIT
fi

install() {
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
}

echo "installing ${missing[*]}"
log=$(mktemp)
if ! install >"$log" 2>&1; then
    # The lists may be missing or old: bring them up to date once, and try again.
    "${as_root[@]}" apt-get update -qq >"$log" 2>&1 && install >"$log" 2>&1 ||
        fail "could not install ${missing[*]}: $(tail -5 "$log")"
fi
rm -f "$log"
