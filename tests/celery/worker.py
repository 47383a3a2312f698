"""Starts a worker of the sample app as a container on ECS would: the node is named by its task.

A node that is named by its task (`worker@<task id>`) is found by worker-drain without any guessing. The task's id is
taken from the first of these that tells it:

    WORKER_NODE_NAME                 the whole node name, as it is
    TASK_ID                          the id
    ECS_CONTAINER_METADATA_URI_V4    on Fargate its path ends in `<task id>-<number>`; elsewhere `<uri>/task` tells
                                     the task's ARN (Amazon ECS Developer Guide, "task metadata endpoint version 4")

and if none does, Celery's own default is used: celery@<host name>. Further arguments are the worker's own:

    worker.py --queues slow --concurrency 2
"""

import json
import os
import re
import sys
import urllib.request
from pathlib import Path


def task_id():
    if os.environ.get("TASK_ID"):
        return os.environ["TASK_ID"]
    uri = os.environ.get("ECS_CONTAINER_METADATA_URI_V4", "").rstrip("/")
    if not uri:
        return None
    fargate = re.search(r"/([0-9a-f]{32})-[0-9]+$", uri)
    if fargate:
        return fargate[1]
    with urllib.request.urlopen(f"{uri}/task", timeout=5) as answer:
        return json.load(answer)["TaskARN"].rsplit("/", 1)[-1]


def node_name():
    if os.environ.get("WORKER_NODE_NAME"):
        return os.environ["WORKER_NODE_NAME"]
    task = task_id()
    return f"worker@{task}" if task else "celery@%h"


def main():
    arguments = [sys.executable, "-m", "celery", "--app", "app", "worker", "--hostname", node_name(), *sys.argv[1:]]
    os.chdir(Path(__file__).parent)
    # Take this process's place: the scheduler's SIGTERM then reaches Celery itself, and not a script in front of it.
    os.execv(sys.executable, arguments)


if __name__ == "__main__":
    main()
