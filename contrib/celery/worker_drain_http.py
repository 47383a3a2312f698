"""Lets worker-drain inspect and drain this Celery worker over HTTP, whatever its broker and pool are.

On Amazon SQS Celery has no remote control, so a worker there cannot be drained without this. It also works with other
brokers, and answers in more situations than remote control: even a worker of the solo pool answers while it runs a job.

It is in the package celery-worker-drain. Add it to your application:

    from worker_drain_http import install
    install(app)

Settings come from the environment of the worker:

    WORKER_DRAIN_HTTP_TOKEN         the token that callers must present, at least 16 characters; several are separated
                                    by spaces or line breaks
    WORKER_DRAIN_HTTP_ALLOW_ANYONE  `true`: no token is required. Anyone who reaches the port can stop the intake
    WORKER_DRAIN_HTTP_PORT          default: 8765
    WORKER_DRAIN_HTTP_ADDRESS       the address to listen on; default: 0.0.0.0
    WORKER_DRAIN_HTTP_PATH          default: /worker-drain
    WORKER_DRAIN_HTTP_CERTIFICATE   a PEM file with a certificate and its key, for `scheme: https`

The contract is docs/http-worker.md of worker-drain. Each worker process needs its own port.
"""

import contextlib
import hmac
import json
import os
import socket
import socketserver
import ssl
import threading
import time
from collections import deque
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler

from celery import bootsteps
from celery.exceptions import ImproperlyConfigured
from celery.utils.log import get_logger

from celery_worker_drain import WorkerDrain, told_job, told_message

__all__ = ("install", "WorkerDrainHttp")

logger = get_logger(__name__)

# Seconds to wait for the worker's event loop before its state is read from outside the loop.
LOOP_SOON = 0.5
# Seconds to wait in all. A worker of the gevent pool serves its loop only every 2 seconds (celery/worker/loops.py).
LOOP_AT_LAST = 4.0
# A receive call to SQS that is in progress when a queue is cancelled may bring messages until so many seconds after its
# own waiting time.
POLL_MARGIN = 2.0
# At most this many jobs are listed: that a list is not empty is all that matters.
MOST_JOBS = 1000
# Stands for a job that the pool has and Celery does not list.
UNKNOWN_JOB = {"id": "unknown", "name": "unknown"}
MOST_BODY = 64 * 1024
MOST_CALLERS = 16
SHORTEST_TOKEN = 16


def install(app):
    """Adds the HTTP endpoint to every worker of this application."""
    app.steps["worker"].add(WorkerDrainHttp)


class NotNow(Exception):
    """The worker cannot answer or do this at the moment."""


class Refused(Exception):
    """The request is invalid here."""

    def __init__(self, status, why):
        super().__init__(why)
        self.status = status


class WorkerDrainHttp(bootsteps.StartStopStep):
    """The step that opens the port, once the pool's processes have started, and closes it when the worker ends.

    It lives as long as the worker does: a worker that loses its broker still answers.
    """

    # Through it the pool too.
    requires = (WorkerDrain,)

    def __init__(self, worker, **options):
        super().__init__(worker, **options)
        self.server = None

    def start(self, worker):
        settings = Settings(os.environ)
        self.server = Server(settings, Drainable(worker))
        # A child of the pool that is forked later must not keep the port open when this process has ended.
        os.register_at_fork(after_in_child=self.server.forget)
        threading.Thread(target=self.server.serve_forever, name="worker-drain-http", daemon=True).start()
        logger.info("worker-drain: answering at port %s%s", self.server.server_address[1], settings.path)

    def stop(self, worker):
        server, self.server = self.server, None
        if server:
            server.shutdown()
            server.server_close()

    terminate = stop

    def register_with_event_loop(self, worker, hub):
        # Called each time the loop begins: the loop forgets its readers when it loses the broker.
        if self.server:
            self.server.drainable.alarm.register(hub)


class Settings:
    """The settings from the environment."""

    def __init__(self, environment):
        def get(name, default=""):
            return environment.get(f"WORKER_DRAIN_HTTP_{name}", default).strip() or default

        self.tokens = [token.encode() for token in get("TOKEN").split()]
        if not self.tokens and get("ALLOW_ANYONE") != "true":
            raise ImproperlyConfigured(
                "WORKER_DRAIN_HTTP_TOKEN is not set: give the worker the token that worker-drain presents, or set "
                "WORKER_DRAIN_HTTP_ALLOW_ANYONE=true if nobody else can reach its port"
            )
        if any(len(token) < SHORTEST_TOKEN for token in self.tokens):
            raise ImproperlyConfigured(
                f"WORKER_DRAIN_HTTP_TOKEN is too short to be a secret: use at least {SHORTEST_TOKEN} characters"
            )
        self.address = get("ADDRESS", "0.0.0.0")
        port = get("PORT", "8765")
        if not port.isdigit() or not 0 < int(port) < 65536:
            raise ImproperlyConfigured(f"WORKER_DRAIN_HTTP_PORT is {port!r}: write a number from 1 to 65535")
        self.port = int(port)
        self.path = "/" + get("PATH", "/worker-drain").strip("/")
        self.certificate = get("CERTIFICATE") or None


class Alarm:
    """Wakes an event loop from another thread. Loops of kombu before 5.7 do not wake up for a new callback."""

    def __init__(self):
        self.reader, self.writer = socket.socketpair()
        for end in (self.reader, self.writer):
            end.setblocking(False)

    def register(self, hub):
        hub.add_reader(self.reader, self.drain)

    def ring(self):
        # A full pipe also wakes it.
        with contextlib.suppress(OSError):
            self.writer.send(b"\0")

    def drain(self, *_):
        with contextlib.suppress(OSError):
            self.reader.recv(4096)


class Order:
    """A piece of work for the thread that runs the worker's event loop: only that thread may touch its consumer."""

    def __init__(self, work):
        self.work = work
        self.result = self.failure = None
        self.done = threading.Event()

    def run(self):
        try:
            self.result = self.work()
        except Exception as failure:  # an exception that escapes would end the worker's event loop
            self.failure = failure
        self.done.set()

    def forget(self):
        """Nobody waits for it any more: while a job of the solo pool runs for hours, many requests arrive."""
        self.work = lambda: None

    def wait(self, seconds):
        """Whether it is done."""
        if not self.done.wait(seconds):
            return False
        if self.failure is not None:
            raise self.failure
        return True


class Drainable:
    """What worker-drain may ask of a worker. Called by the threads that serve HTTP."""

    def __init__(self, worker):
        self.worker = worker
        self.inside = worker.worker_drain
        self.alarm = Alarm()
        self.orders = deque()
        # Until when a cancelled queue may still bring jobs, on a monotonic clock.
        self.still_coming = {}

    def state(self):
        """The state as of one moment, or NotNow."""
        order = self.order(self.snapshot)
        if order.wait(LOOP_SOON):
            return order.result
        # The loop is busy, like that of the solo pool while it runs a job. A state that is read from outside is not of
        # one moment: it can prove that there is work, or that the worker consumes, but never that there is none.
        seen = self.glance()
        if seen is not None and (seen["queues"] or seen["active"] or seen["reserved"]):
            order.forget()
            return seen
        if order.wait(LOOP_AT_LAST - LOOP_SOON):
            return order.result
        order.forget()
        raise NotNow("the worker's event loop does not answer: it starts, ends, or waits for its broker")

    def cancel(self, queues):
        """Stops consuming from these queues, if it does. Returns whether that is in force already."""
        return self.order(lambda: [self.cancel_one(queue) for queue in queues]).wait(LOOP_AT_LAST)

    def resume(self, queues):
        """Consumes from these queues again. Returns whether that is in force already."""
        unknown = [queue for queue in queues if queue not in self.worker.app.amqp.queues]
        if unknown:
            raise Refused(422, f"this worker knows no queue {', '.join(unknown)}")
        return self.order(lambda: [self.resume_one(queue) for queue in queues]).wait(LOOP_AT_LAST)

    def order(self, work):
        """Lets the event loop's thread do this, after all earlier orders."""
        consumer = getattr(self.worker, "consumer", None)
        if consumer is None:
            raise NotNow("the worker is starting")
        order = Order(work)
        self.orders.append(order)
        consumer.call_soon(self.carry_out)
        self.alarm.ring()
        return order

    def carry_out(self):
        while self.orders:
            self.orders.popleft().run()

    def cancel_one(self, queue):
        consumer = self.consumer()
        if consumer.task_consumer.consuming_from(queue):
            self.still_coming[queue] = time.monotonic() + poll_time(consumer)
        consumer.cancel_task_queue(queue)

    def resume_one(self, queue):
        consumer = self.consumer()
        self.still_coming.pop(queue, None)
        consumer.add_task_queue(queue)
        queues = consumer.app.amqp.queues
        if queues[queue].name not in queues.consume_from:
            # Celery before 5.6 forgets what was added when it connects to its broker again (celery#10352).
            queues.select_add(queues[queue])

    def consumer(self):
        consumer = self.worker.consumer
        if not consumer.connection or not consumer.task_consumer:
            raise NotNow("the worker has no connection to its broker")
        return consumer

    def glance(self):
        """A snapshot from another thread, or None if the worker moves too fast for it."""
        for _ in range(10):
            with contextlib.suppress(AttributeError, RuntimeError):  # something changed while it was read
                return self.snapshot()
        return None

    def snapshot(self):
        """The worker's state, as docs/http-worker.md describes it."""
        coming = self.still_coming_now()
        seen = self.inside.snapshot()
        queues = [queue.name for queue in seen.queues or ()]
        active = [job(request, startedAt=request.time_start) for request in seen.active]
        reserved = [job(request) for request in [*seen.reserved, *seen.limited]]
        reserved += [told_message(message) for message in seen.unlisted or ()]
        # What only the pool knows of: jobs that it had when the broker was lost, and batches of jobs.
        reserved += [UNKNOWN_JOB] * ((seen.pool or 0) - len(active) - len(reserved))
        return {
            "instance": self.inside.instance,
            "worker": self.worker.hostname,
            "task": self.inside.task,
            "startedAt": timestamp(self.inside.started_at),
            "queues": None if seen.queues is None and not coming else sorted({*queues, *coming}),
            "active": active[:MOST_JOBS],
            "reserved": reserved[:MOST_JOBS],
            "scheduled": [job(request, eta=request.eta) for request in seen.scheduled[:MOST_JOBS]],
        }

    def still_coming_now(self):
        now = time.monotonic()
        return [queue for queue, until in list(self.still_coming.items()) if until > now]


def poll_time(consumer):
    """How long a call that fetches messages may be in progress. Event loops poll only SQS in this way; other brokers
    either push messages, or kombu returns those that come too late."""
    if consumer.hub is None or consumer.connection.transport.driver_type != "sqs":
        return 0.0
    return float(consumer.task_consumer.channel.wait_time_seconds or 0) + POLL_MARGIN


def job(request, **times):
    told = told_job(request)
    told.update((key, timestamp(value)) for key, value in times.items() if value is not None)
    return told


def timestamp(moment):
    """RFC 3339, of seconds since 1970 or a datetime."""
    if not isinstance(moment, datetime):
        moment = datetime.fromtimestamp(moment, timezone.utc)
    elif moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return moment.astimezone(timezone.utc).isoformat().replace("+00:00", "Z")


class Server(socketserver.ThreadingTCPServer):
    """A thread for each caller, and no more than a few at once."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, settings, drainable):
        self.settings = settings
        self.drainable = drainable
        self.places = threading.BoundedSemaphore(MOST_CALLERS)
        self.tls = None
        if settings.certificate:
            self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self.tls.load_cert_chain(settings.certificate)
        self.address_family = socket.AF_INET6 if ":" in settings.address else socket.AF_INET
        try:
            super().__init__((settings.address, settings.port), Handler)
        except OSError as failure:
            raise ImproperlyConfigured(
                f"cannot listen on {settings.address} port {settings.port} (WORKER_DRAIN_HTTP_ADDRESS and _PORT; each "
                f"worker process needs its own port): {failure}"
            ) from failure

    def process_request(self, request, client_address):
        if not self.places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request, client_address):
        try:
            request.settimeout(Handler.timeout)
            if self.tls:
                request = self.tls.wrap_socket(request, server_side=True)
            super().process_request_thread(request, client_address)
        except OSError:
            self.shutdown_request(request)  # no TLS, or a TLS that does not accept our certificate
        finally:
            self.places.release()

    def handle_error(self, request, client_address):
        logger.debug("worker-drain: a caller went away", exc_info=True)

    def forget(self):
        self.socket.close()


class Handler(BaseHTTPRequestHandler):
    """Serves one request."""

    timeout = 10
    server_version = "worker-drain-http"
    sys_version = ""

    def do_GET(self):
        self.answer({self.server.settings.path: self.get_state})

    def do_POST(self):
        path = self.server.settings.path.rstrip("/")
        drainable = self.server.drainable
        self.answer({
            f"{path}/cancel": lambda: self.post_order(drainable.cancel),
            f"{path}/resume": lambda: self.post_order(drainable.resume),
        })

    def answer(self, places):
        try:
            if not self.is_allowed():
                raise Refused(401, "the bearer token is missing or not this worker's")
            place = places.get(self.path.partition("?")[0])
            if place is None:
                raise Refused(404, f"{self.path} is not served here; {self.server.settings.path} is")
            self.send(*place())
        except Refused as refused:
            self.send(refused.status, {"error": str(refused)})
        except NotNow as why:
            self.send(503, {"error": str(why)})
        except Exception as failure:
            logger.exception("worker-drain: %s %s failed", self.command, self.path)
            self.send(500, {"error": f"{type(failure).__name__}: see the worker's log"})

    def is_allowed(self):
        tokens = self.server.settings.tokens
        if not tokens:
            return True
        kind, _, shown = self.headers.get("Authorization", "").partition(" ")
        shown = shown.strip().encode("latin-1", "replace")
        # All are compared, so that the time reveals nothing.
        fits = [hmac.compare_digest(shown, token) for token in tokens]
        return kind.lower() == "bearer" and any(fits)

    def get_state(self):
        return 200, self.server.drainable.state()

    def post_order(self, carry_out):
        body = self.body()
        queues = body.get("queues")
        if not isinstance(queues, list) or not all(isinstance(queue, str) and queue for queue in queues):
            raise Refused(400, "queues must be a list of names")
        if body.get("instance") != self.server.drainable.inside.instance:
            raise Refused(409, "instance is not this worker's: it was restarted, get its state again")
        # Not in time is no failure: it is done before any later order.
        return (200, {"done": True}) if carry_out(queues) else (202, {"done": False})

    def body(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdigit():
            raise Refused(411, "Content-Length is missing")
        if int(length) > MOST_BODY:
            raise Refused(413, f"the body is longer than {MOST_BODY} bytes")
        try:
            body = json.loads(self.rfile.read(int(length)))
        except ValueError:
            raise Refused(400, "the body is not JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "the body is not a JSON object")
        return body

    def send(self, status, body):
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        if status == 401:
            self.send_header("WWW-Authenticate", "Bearer")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, form, *arguments):
        logger.debug("worker-drain: " + form, *arguments)
