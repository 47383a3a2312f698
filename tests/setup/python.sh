#!/usr/bin/env bash
# Makes the Python environments that the tests run Celery in:
#   .cache/venv        what is in requirements.txt: the Celery of today, and AWS's clients
#   .cache/celery-5.x  what is in requirements-5.x.txt: older Celeries, whose remote control behaves differently
#   .cache/venv-sqs    what is in requirements-sqs.txt: Celery on Amazon SQS, and moto, which stands in for that
# Does nothing when they are already as those files say. An environment that was left half made is made anew.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache

fail() {
    echo "tests/setup/python.sh: $*" >&2
    exit 1
}

python=${PYTHON:-python3}
command -v "$python" >/dev/null || fail "$python is not installed; run tests/setup/apt.sh, or set PYTHON"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$("$python" --version) is too old: 3.10 or newer is needed; set PYTHON to another one"
"$python" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$python has no venv module; on Debian it is in the package python3-venv (tests/setup/apt.sh installs it)"

# The stamp is written last and holds what the environment was made from: without it, or with another one, the
# environment is not what we want, however far its making came.
make_venv() {
    local venv=$1 requirements=$2 stamp wanted
    stamp=$venv/.made-from
    wanted=$("$python" -c 'import sys; print(sys.version)'; cat "$requirements")
    if [ -x "$venv/bin/celery" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    echo "making $venv"
    rm -rf "$venv"
    "$python" -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$requirements"
    "$venv/bin/python" -m pip check --disable-pip-version-check >/dev/null ||
        fail "$requirements does not fit together: $("$venv/bin/python" -m pip check 2>&1 | head -3)"
    printf '%s\n' "$wanted" >"$stamp"
}

mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P) # an environment knows where it is; a link to the folder may go
exec 9>"$cache/.venv.lock"
flock 9 # two at once would build in each other's way

make_venv "$cache/venv" "$here/requirements.txt"
for version in 5.3 5.4 5.5 5.6; do
    make_venv "$cache/celery-$version" "$here/requirements-$version.txt"
done
make_venv "$cache/venv-sqs" "$here/requirements-sqs.txt"
