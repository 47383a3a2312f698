#!/bin/sh
# A worker on Redis that was told to stop consuming from a `Broadcast` queue, says so, and lists the queue no more, goes on running the
# jobs that are sent to it.
#
# Guess, before it was run: the worker leaves the channel of the fanout exchange, so that it gets no more copies; if it does not, the next
# message is an error, because kombu has forgotten which queue the channel stood for.
#
# Seen with Celery 5.7.0 and 5.4.0 (kombu 5.7.0 and 5.4.2) on Redis: `cancel_consumer` answers "no longer consuming", `active_queues` shows
# the other queue alone, and the next job that is published to the exchange runs in that worker. Nothing is logged. On RabbitMQ the same
# cancel deletes the queue, because it is `auto_delete`, and the job does not come.
# What to do: where a worker must run nothing more, do not take an empty `active_queues` for that if it has broadcasts; stop it.
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
cat >"$folder/fleet.py" <<PYTHON
from pathlib import Path

from celery import Celery
from kombu import Queue
from kombu.common import Broadcast

app = Celery("fleet", broker="redis://127.0.0.1:$port/0")
app.conf.update(task_ignore_result=True, task_default_queue="own", task_queues=[Queue("own"), Broadcast("news")])


@app.task
def note(name):
    Path("$folder", name).touch()
PYTHON
cat >"$folder/probe.py" <<PYTHON
import sys
from pathlib import Path
from time import monotonic, sleep

import celery
import kombu
from fleet import app, note
from kombu import Exchange

version, transport = sys.argv[1:]
assert (celery.__version__, kombu.__version__) == (version, transport), (celery.__version__, kombu.__version__)


def until(what, condition):
    end = monotonic() + 60
    while not condition():
        assert monotonic() < end, f"waited in vain until {what}"
        sleep(0.2)


def listed():
    answers = app.control.inspect(timeout=2).active_queues() or {}
    return {queue["name"]: queue["exchange"]["type"] for queues in answers.values() for queue in queues}


def runs(name):
    with app.producer_pool.acquire() as producer:
        note.apply_async((name,), producer=producer, exchange=Exchange("news", type="fanout"), routing_key="", declare=[])
    until(f"{name} runs", Path("$folder", name).exists)


until("it consumes from both", lambda: len(listed()) == 2)
runs(f"before-{version}")
broadcast = next(name for name, kind in listed().items() if kind == "fanout")
said = app.control.cancel_consumer(broadcast, reply=True, timeout=2)
until("the broadcast is listed no more", lambda: list(listed()) == ["own"])
runs(f"after-{version}")
print(f"Celery {version}: {said}; lists {list(listed())}, and has run a broadcast since")
PYTHON
for versions in 5.7.0/5.7.0 5.4.0/5.4.2; do
    version=${versions%/*}
    python3 -m venv "$folder/venv-$version"
    "$folder/venv-$version/bin/pip" --quiet --disable-pip-version-check install "celery==$version" "kombu[redis]==${versions#*/}" setuptools packaging
    (cd "$folder" && exec "venv-$version/bin/celery" -A fleet worker -n one@here --concurrency 1 --loglevel ERROR) >"$folder/worker" 2>&1 &
    worker=$!
    PYTHONPATH="$folder" "$folder/venv-$version/bin/python" "$folder/probe.py" "$version" "${versions#*/}"
    kill "$worker"
    wait "$worker" || true
    worker=
done
