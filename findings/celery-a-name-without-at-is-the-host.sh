#!/bin/sh
# `celery worker -n heavy` is not the worker `heavy` of this host: it is `celery@heavy`, and so on every host. Two of them on two machines
# have one name, and remote control cannot tell them apart.
#
# Guess, before it was run: Celery adds the host to a name that has none, as it does to none at all: the node is `heavy@<host name>`.
#
# Seen with Celery 5.7.0 and 5.3.6 on Redis: of two workers that were started as `-n heavy` in two folders, both are `celery@heavy`. Both
# answer a `ping`, and the client keeps one answer, with a `DuplicateNodenameWarning`, because answers are kept by name: two processes, one
# worker. `heavy@<host name>` answers nobody. With `-n heavy@%h` it is the name that one would expect.
# What to do: write the `@`; on several machines or containers with something behind it that tells them apart.
set -eu
folder=$(mktemp -d)
server=
workers=
finish() {
    for worker in $workers; do kill -KILL "$worker" 2>"$folder/log" || true; done
    [ -z "$server" ] || kill "$server"
    rm -rf "$folder"
}
trap finish EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
redis-server --port "$port" --bind 127.0.0.1 --save "" >"$folder/redis" &
server=$!
cat >"$folder/probe.py" <<PYTHON
import sys
from socket import gethostname
from time import monotonic, sleep

from celery import Celery, __version__

assert __version__ == sys.argv[1], __version__
app = Celery(broker="redis://127.0.0.1:$port/0")
expected = [f"heavy@{gethostname()}"]
end = monotonic() + 60
while True:
    replies = [name for reply in app.control.ping(timeout=2) for name in reply]
    if len(replies) == 2:
        break
    assert monotonic() < end, f"two workers did not answer: {replies}"
    sleep(0.2)
kept = app.control.inspect(timeout=2).ping()
asked = app.control.ping(destination=expected, timeout=2)
print(f"Celery {__version__}: two workers answer as {replies}; the client keeps {sorted(kept)}; {expected[0]} answers {asked}")
assert replies == ["celery@heavy", "celery@heavy"], replies
assert list(kept) == ["celery@heavy"] and asked == [], (kept, asked)
PYTHON
for versions in 5.7.0/5.7.0 5.3.6/5.3.7; do
    version=${versions%/*}
    python3 -m venv "$folder/venv-$version"
    "$folder/venv-$version/bin/pip" --quiet --disable-pip-version-check install "celery==$version" "kombu[redis]==${versions#*/}" setuptools packaging
    workers=
    for place in one two; do
        mkdir -p "$folder/$version/$place"
        (cd "$folder/$version/$place" && exec "$folder/venv-$version/bin/celery" -b "redis://127.0.0.1:$port/0" worker -n heavy --concurrency 1 \
            --loglevel ERROR) >"$folder/worker" 2>&1 &
        workers="$workers $!"
    done
    "$folder/venv-$version/bin/python" "$folder/probe.py" "$version"
    for worker in $workers; do
        kill "$worker"
        wait "$worker" || true
    done
    workers=
done
