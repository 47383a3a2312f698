"""Lets a Celery worker tell worker-drain all that it holds, in one small answer.

Celery's own `inspect` shows only a part of it: not the jobs that a rate limit holds back, not those that a thread or a
greenlet still has after the broker was lost, and not those of celery-batches. This module sees them from inside.

Install the package, and let the worker import it. The start command stays as it is:

    app = Celery("app", include=["celery_worker_drain"])    # or
    app.conf.imports = ["celery_worker_drain"]              # or
    celery --app app worker -I celery_worker_drain

It adds one remote control command, `worker_drain`, and one key to the answer of `inspect stats`. It changes nothing in
how jobs are received and run. The answer contains the ids and the registered names of jobs, never their
arguments. Its form is in docs/celery-package.md of worker-drain; each claim about Celery here was read in its versions
5.3 to 5.7 and seen on workers of them.
"""

import os
import re
import threading
import time
import uuid
import weakref
from collections import namedtuple

from celery import __version__ as celery_version
from celery import bootsteps
from celery.signals import worker_init
from celery.utils.log import get_logger
from celery.worker import state as worker_state
from celery.worker.control import inspect_command
from celery.worker.request import Request
from kombu.utils.limits import TokenBucket

import worker_drain_nodename

from .pools import HandedOver, kind_of, short

__all__ = ("CONTRACT", "WorkerDrain", "__version__")

__version__ = "0.1.0"

logger = get_logger(__name__)

# Counts up when the answer changes in a way that an older worker-drain would misread.
CONTRACT = 1
# At most this many entries are in each list of an answer. The counts are always whole.
MOST = 100

Snapshot = namedtuple("Snapshot", "queues scheduled limited reserved active unacknowledged unlisted pool")
Snapshot.__doc__ = """All that a worker holds, as of one moment.

queues: the queues that it consumes from; None if that is unknown, as between two connections to the broker.
scheduled, limited, reserved, active: requests, each in one of them: they wait for their time, for their rate limit, for
    a place in the pool, or run.
unacknowledged: messages of this connection that are neither acknowledged nor rejected. None if that is unknown.
unlisted: those of them whose job is in none of the lists, as with celery-batches.
pool: how many jobs the pool has, running or waiting. None if this kind of pool cannot be counted.
"""


@worker_init.connect
def add_to_worker(sender=None, **_):
    # Sent when all that the worker is to import has been imported, `-I` too, and before its steps are made.
    sender.app.steps["worker"].add(WorkerDrain)


@inspect_command(name="worker_drain")
def answer_inspect(state, **_):
    """What this worker holds, without arguments of jobs: for worker-drain."""
    inside = getattr(state.consumer.controller, "worker_drain", None)
    if inside is None:
        return {"error": "celery_worker_drain was imported after the worker had started: add it to `include`"}
    return inside.answer()


class WorkerDrain(bootsteps.StartStopStep):
    """The step that watches from the worker's start on what it receives and what its pool is given."""

    requires = ("celery.worker.components:Pool",)

    def create(self, worker):
        worker.worker_drain = self.inside = Inside(worker)

    def start(self, worker):
        # Steps are started after all were made, and the consumer as the last one: it has received nothing yet.
        self.inside.watch(worker.consumer)
        self.inside.find_task()

    def stop(self, worker):
        pass

    terminate = stop

    def info(self, worker):
        """Its part of `inspect stats`: this is how worker-drain learns that the command exists."""
        return {"worker_drain": self.inside.identity()}


class Inside:
    """The view into one worker, for the remote control command and for worker_drain_http."""

    def __init__(self, worker):
        self.worker = worker
        self.instance = uuid.uuid4().hex
        self.started_at = time.time()
        self.task = task_in(metadata_uri())
        # What it was told to consume from, before anybody cancelled or added a queue.
        self.own_queues = [queue.name for queue in worker.app.amqp.queues.consume_from.values()]
        self.handed_over = HandedOver(worker.pool)
        self.received = weakref.WeakSet()

    def watch(self, consumer):
        self.handed_over.watch()
        self.watch_messages(consumer)

    def watch_messages(self, consumer):
        """Keeps account of the messages that this consumer receives, anew for each connection: what an old one brought
        cannot be acknowledged any more, and the broker has it again."""
        create_task_handler = consumer.create_task_handler

        def create_watching_handler(*args, **kwargs):
            on_task_received = create_task_handler(*args, **kwargs)
            received = self.received = weakref.WeakSet()

            def on_message(message):
                # Weakly: what nobody refers to any more can neither be run nor acknowledged.
                try:
                    received.add(message)
                except TypeError:  # a transport whose messages cannot be referred to so
                    self.received = None
                return on_task_received(message)

            return on_message

        consumer.create_task_handler = create_watching_handler

    def find_task(self):
        """Asks for the ECS task's id. The endpoint may not answer at once, and the worker does not wait for it."""
        if self.task is None and metadata_uri():
            threading.Thread(target=self.ask_for_task, name="worker-drain-task", daemon=True).start()

    def ask_for_task(self):
        self.task = ecs_task()

    def identity(self):
        return {
            "contract": CONTRACT,
            "version": __version__,
            "instance": self.instance,
            "task": self.task,
            "celery": celery_version,
        }

    def answer(self):
        """The answer to the remote control command. Called where the worker's state does not change meanwhile: in its
        event loop, or in a greenlet that does not wait."""
        seen = self.snapshot()
        return {
            **self.identity(),
            "pid": os.getpid(),
            "started_at": self.started_at,
            "pool": kind_of(self.worker.pool),
            # The first connection is number 0.
            "connection_losses": max(0, self.worker.consumer.restart_count),
            "queues": None if seen.queues is None else [told_queue(queue) for queue in seen.queues[:MOST]],
            "own_queues": self.own_queues[:MOST],
            "active": [{**told_job(request), "time_start": request.time_start} for request in seen.active[:MOST]],
            "reserved": [told_job(request) for request in seen.reserved[:MOST]],
            "limited": [told_job(request) for request in seen.limited[:MOST]],
            "scheduled": [told_job(request) for request in seen.scheduled[:MOST]],
            "counts": {
                "active": len(seen.active),
                "reserved": len(seen.reserved),
                "limited": len(seen.limited),
                "scheduled": len(seen.scheduled),
                "pool": seen.pool,
                "unacknowledged": None if seen.unacknowledged is None else len(seen.unacknowledged),
                "unlisted": None if seen.unlisted is None else len(seen.unlisted),
                "queues": None if seen.queues is None else len(seen.queues),
                "own_queues": len(self.own_queues),
            },
        }

    def snapshot(self):
        """The whole state, read in the order in which jobs move: where one moves meanwhile, in a pool that calls back
        from threads, it is seen twice rather than never."""
        consumer = self.worker.consumer
        queues = self.queues()
        # Before the lists: a job that leaves one of them for the next is unacknowledged all the while.
        messages = self.unacknowledged()
        timer = list(consumer.timer.schedule.queue)
        scheduled = [request for request in first_arguments(timer, Request)]
        limited = requests_in([*list(consumer.task_buckets.values()), *first_arguments(timer, TokenBucket)])
        reserved = members(worker_state.reserved_requests)
        active = members(worker_state.active_requests)
        pool = self.handed_over.count()
        # What runs and is a ghost is not reserved either.
        running = {id(request) for request in active}
        active = [request for request in active if not self.handed_over.is_ghost(request)]
        active.sort(key=lambda request: request.time_start or 0)
        reserved = [request for request in reserved if id(request) not in running]
        listed = {id(request.message) for request in [*scheduled, *limited, *reserved, *active]}
        unlisted = None if messages is None else [message for message in messages if id(message) not in listed]
        return Snapshot(queues, scheduled, limited, reserved, active, messages, unlisted, pool)

    def queues(self):
        consumer = self.worker.consumer
        taken = consumer.task_consumer if consumer.connection else None
        queues = list(taken.queues) if taken else []
        if queues:
            # None consumed from: it begins, or a cancel is on its way to the broker, whose last deliveries may be too.
            return queues if any(taken.consuming_from(queue.name) for queue in queues) else None
        return None if list(consumer.app.amqp.queues.consume_from) else []

    def unacknowledged(self):
        received = self.received
        return None if received is None else [message for message in members(received) if not message.acknowledged]


def members(weak_set):
    """What is in it. Other threads may change it meanwhile."""
    for _ in range(100):
        try:
            return list(weak_set)
        except RuntimeError:  # it changed while it was read
            continue
    raise RuntimeError("the worker's jobs change too fast to be read: ask again")


def first_arguments(timer, kind):
    """What waits on the worker's timer and has a first argument of this kind: a request that waits for its time, or a
    bucket whose next request waits for its turn. Entries that were cancelled stay there, and do nothing."""
    for waiting in timer:
        arguments = getattr(waiting.entry, "args", None)
        if arguments and isinstance(arguments[0], kind) and not getattr(waiting.entry, "canceled", False):
            yield arguments[0]


def requests_in(buckets):
    """The requests that wait in these token buckets. A bucket that was replaced, as by the remote control command
    `rate_limit`, is on the timer only."""
    different = {id(bucket): bucket for bucket in buckets if bucket}
    return [request for bucket in different.values() for request, _ in list(bucket.contents)]


def told_queue(queue):
    exchange = queue.exchange
    return {
        "name": queue.name,
        "routing_key": queue.routing_key,
        "exchange": {"name": exchange.name if exchange else "", "type": exchange.type if exchange else "direct"},
        "auto_delete": bool(queue.auto_delete),
    }


def told_job(request):
    """A job without its arguments. By its registered name: a shadow name may be made of arguments."""
    return {"id": short(request.id), "name": short(request.type)}


def told_message(message):
    """The same of a job that is in a message only."""
    try:
        return {"id": short(message.headers["id"]), "name": short(message.headers["task"])}
    except (KeyError, TypeError):  # of another protocol
        return {"id": "unknown", "name": "unknown"}


def metadata_uri():
    return os.environ.get("ECS_CONTAINER_METADATA_URI_V4", "").strip().rstrip("/")


def task_in(uri):
    """The id of the ECS task in the address of its metadata, which has it on Fargate; or None."""
    found = re.search(r"/([0-9a-f]{32})-[0-9]+$", uri)
    return found[1] if found else None


def ecs_task():
    """The id of the ECS task that this runs in; None outside of ECS, or if its metadata cannot be read."""
    uri = metadata_uri()
    if not uri or task_in(uri):
        return task_in(uri)
    try:
        return worker_drain_nodename.task_id({"ECS_CONTAINER_METADATA_URI_V4": uri})
    except worker_drain_nodename.NoTaskId as failure:
        logger.warning("worker-drain: the ECS task's id is not reported: %s", failure)
        return None
