#!/bin/sh
# A rate limit that is raised or taken away while jobs wait for it is in force for new jobs only, and nothing tells of those that wait.
#
# Guess, before it was run: `celery control rate_limit` with a higher limit, or with 0, which means none, lets the jobs that wait in the
# worker begin at once; `inspect registered` shows the limit that they wait for, and they are in `inspect reserved`.
#
# Seen with Celery 5.7.0 and 5.3.6 on Redis: four jobs, with 6 a minute; the first begins. Then the limit is taken away. `registered`
# shows 0 at once, and the three others begin about ten seconds after one another all the same. Meanwhile `active`, `reserved` and
# `scheduled` are empty: the worker looks idle, and no list and no setting shows that it is not.
# What to do: remember every limit that was seen since the worker started, and wait for its interval; or count the jobs inside the
# worker.
set -eu
folder=$(mktemp -d)
server=
worker=
finish() {
    [ -z "$worker" ] || kill -KILL "$worker" 2>"$folder/log" || true
    [ -z "$server" ] || kill "$server"
    rm -rf "$folder"
}
trap finish EXIT
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
redis-server --port "$port" --bind 127.0.0.1 --save "" >"$folder/redis" &
server=$!
cat >"$folder/limited.py" <<PYTHON
from time import time

from celery import Celery

app = Celery("limited", broker="redis://127.0.0.1:$port/0", backend="redis://127.0.0.1:$port/1")
app.conf.broker_connection_retry_on_startup = True


@app.task(name="limited.job")
def job():
    return time()
PYTHON
cat >"$folder/probe.py" <<'PYTHON'
import sys
from time import monotonic, sleep

from celery import __version__
from limited import app, job

assert __version__ == sys.argv[1], __version__


def wait_for(what, seconds=60):
    end = monotonic() + seconds
    while not what():
        assert monotonic() < end, f"nothing for {seconds} s"
        sleep(0.1)


wait_for(lambda: app.control.ping(timeout=1))
app.control.rate_limit("limited.job", "6/m", reply=True, timeout=2)
results = [job.delay() for _ in range(4)]
wait_for(lambda: any(result.ready() for result in results))
app.control.rate_limit("limited.job", "0", reply=True, timeout=2)
inspect = app.control.inspect(timeout=1)
registered = [entry for entries in inspect.registered("rate_limit").values() for entry in entries]
lists = {name: sum(map(len, getattr(inspect, name)().values())) for name in ("active", "reserved", "scheduled")}
waiting = sum(not result.ready() for result in results)
begun = sorted(result.get(timeout=60) for result in results)
apart = [round(later - earlier) for earlier, later in zip(begun, begun[1:])]
print(f"Celery {__version__}: registered {registered}; lists {lists}; {waiting} jobs waited, and began {apart} s after one another")
assert registered == ["limited.job [rate_limit=0]"], registered
assert set(lists.values()) == {0} and waiting >= 2, (lists, waiting)
assert all(seconds >= 5 for seconds in apart), f"this has changed: {apart}"
PYTHON
for versions in 5.7.0/5.7.0 5.3.6/5.3.7; do
    version=${versions%/*}
    python3 -m venv "$folder/venv-$version"
    "$folder/venv-$version/bin/pip" --quiet --disable-pip-version-check install "celery==$version" "kombu[redis]==${versions#*/}" setuptools packaging
    (cd "$folder" && exec "$folder/venv-$version/bin/celery" -A limited worker --concurrency 1 --loglevel ERROR) >"$folder/worker" 2>&1 &
    worker=$!
    (cd "$folder" && "$folder/venv-$version/bin/python" probe.py "$version")
    kill "$worker"
    wait "$worker" || true
    worker=
done
