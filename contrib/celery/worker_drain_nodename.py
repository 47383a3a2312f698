"""Prints the id of the ECS task that it runs in, so that a Celery worker can be named by its task.

ECS sets no environment variable with the task's id. Copy this file beside your application (it needs only Python) and
start the worker with it, from a shell script or a `sh -c`:

    TASK_ID=$(python -m worker_drain_nodename) || exit 1
    exec celery --app app worker --hostname "worker@$TASK_ID"

The manifest of worker-drain then says `nodeName: "worker@{taskId}"`.

The id is the last part of `TaskARN` in the task metadata (Amazon ECS Developer Guide, "Amazon ECS task metadata
endpoint version 4"). Outside ECS, set WORKER_DRAIN_TASK_ID: it is printed as it is, and nothing is asked.
"""

import http.client
import json
import os
import sys
import time
import urllib.request

ATTEMPTS = 5
# Seconds between two attempts: the endpoint may not answer yet when the container has just started.
PAUSE = 1
# Seconds for one attempt.
TIMEOUT = 5


class NoTaskId(Exception):
    """The task's id cannot be had. The message says what to do."""


def task_id(environment=os.environ):
    """The id of this container's task, such as `8f03e41243824aea923aca126495f665`, or NoTaskId."""
    given = environment.get("WORKER_DRAIN_TASK_ID", "").strip()
    if given:
        return given
    uri = environment.get("ECS_CONTAINER_METADATA_URI_V4", "").strip().rstrip("/")
    if not uri:
        raise NoTaskId(
            "ECS_CONTAINER_METADATA_URI_V4 is not set, so this is not a container of an ECS task (or its container "
            "agent is older than 1.39.0). Outside ECS, set WORKER_DRAIN_TASK_ID to a name that no other worker has"
        )
    return task_id_of(metadata(f"{uri}/task"), f"{uri}/task")


def metadata(url):
    """The task metadata as JSON text. Never through a proxy: the endpoint is an address of the container's own host."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    failure = None
    for attempt in range(ATTEMPTS):
        if attempt:
            time.sleep(PAUSE)
        try:
            with opener.open(url, timeout=TIMEOUT) as answer:
                return answer.read()
        except (OSError, ValueError, http.client.HTTPException) as latest:
            failure = latest
    raise NoTaskId(
        f"the task metadata at {url} could not be read in {ATTEMPTS} attempts: {failure}. "
        f"Check ECS_CONTAINER_METADATA_URI_V4, or set WORKER_DRAIN_TASK_ID to the task's id"
    ) from failure


def task_id_of(text, url):
    try:
        arn = json.loads(text)["TaskARN"]
        found = arn.rsplit("/", 1)[1]
        if found:
            return found
    except (ValueError, KeyError, TypeError, AttributeError, IndexError):
        pass
    raise NoTaskId(
        f"the task metadata at {url} names no task: there is no TaskARN such as arn:aws:ecs:...:task/media/8f03e412... "
        f"in {text[:200]!r}. Check ECS_CONTAINER_METADATA_URI_V4, or set WORKER_DRAIN_TASK_ID to the task's id"
    )


def main():
    try:
        print(task_id())
    except NoTaskId as failure:
        sys.exit(f"worker_drain_nodename: {failure}")


if __name__ == "__main__":
    main()
