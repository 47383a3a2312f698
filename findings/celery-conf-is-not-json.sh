#!/bin/sh
# What a Celery worker answers to the remote-control command `conf` is sent as application/json, and is not JSON.
#
# Guess, before it was run: the answer to `celery inspect conf`, with its defaults, is a JSON document like every other reply; any
# JSON parser reads it.
#
# Seen with Celery 5.7.0 and 5.3.6: the default of `result_backend_max_retries` is float("inf"), which Python's json module writes as
# the bare word Infinity. RFC 8259 (section 6) knows no such number: JavaScript's JSON.parse and Rust's serde_json refuse
# the whole reply. Python's own client reads it, so nobody notices.
# What to do: ask without defaults (`with_defaults=False`), or read Infinity, -Infinity and NaN as Python does.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
for version in 5.7.0 5.3.6; do
    "$folder/venv/bin/pip" --quiet --disable-pip-version-check install "celery==$version" setuptools
    "$folder/venv/bin/python" - "$version" <<'PYTHON'
import json
import sys
from types import SimpleNamespace

from celery import Celery, __version__
from celery.worker.control import Panel
from kombu.serialization import dumps

assert __version__ == sys.argv[1], __version__
app = Celery("finding", broker="memory://")


def refuse(word):
    raise ValueError(f"{word} is no JSON")


def is_json(payload):
    try:
        json.loads(payload, parse_constant=refuse)
    except ValueError:
        return False
    return True


answers = {}
for with_defaults in (True, False):
    answer = Panel.data["conf"](SimpleNamespace(app=app), with_defaults=with_defaults)
    content_type, _, payload = dumps({"worker@host": answer}, serializer="json")
    assert content_type == "application/json", content_type
    answers[with_defaults] = is_json(payload)
    words = [name for name, value in answer.items() if value in (float("inf"), float("-inf"))]
    print(f"Celery {__version__}, with_defaults={with_defaults}: JSON: {answers[with_defaults]}; infinite: {words}")
assert answers == {True: False, False: True}, f"this has changed: {answers}"
PYTHON
done
