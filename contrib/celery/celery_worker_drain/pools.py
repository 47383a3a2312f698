"""Counts the jobs that a worker's pool has: what the pool was given, and has not done."""

from billiard.pool import READY
from celery.utils.log import get_logger

logger = get_logger(__name__)

# The pools of Celery, by the module that has them.
POOLS = {
    "celery.concurrency.prefork": "prefork",
    "celery.concurrency.thread": "threads",
    "celery.concurrency.gevent": "gevent",
    "celery.concurrency.eventlet": "eventlet",
    "celery.concurrency.solo": "solo",
}
# At most this many characters of a job's id or name.
LONGEST = 255


class HandedOver:
    """The jobs that the pool has: running, or waiting in it. Celery's own lists lose sight of a part of them when the
    worker loses its broker, and so does the prefork pool of Celery 5.3 to 5.5."""

    def __init__(self, pool):
        self.pool = pool
        self.kind = kind_of(pool)
        # Calls that hand a job over and have not returned: green pools block where they are full, and solo until the
        # job has ended.
        self.underway = set()
        # Jobs of a thread pool, which has no count of its own.
        self.futures = set()
        self.processes = Processes(pool) if self.kind == "prefork" else None
        apply_async = pool.apply_async

        def watched_apply_async(*args, **kwargs):
            call = object()
            self.underway.add(call)
            try:
                result = apply_async(*args, **kwargs)
                self.add(result)
                return result
            finally:
                self.underway.discard(call)

        pool.apply_async = watched_apply_async

    def watch(self):
        """To be called when the pool has been started."""
        try:
            if self.processes:
                self.processes.watch()
        except (AttributeError, KeyError) as failure:
            # A worker that runs and cannot be proven idle is better than one that does not start.
            logger.warning("worker-drain: jobs in the pool of this Celery cannot be counted: %r", failure)
            self.processes = None

    def add(self, result):
        if self.processes and result is not None:  # None: the pool is closed
            self.processes.add(result)
        elif self.kind == "threads":
            self.futures.add(result.f)
            result.f.add_done_callback(self.futures.discard)

    def count(self):
        """How many there are, or None if that cannot be known of a pool that is not Celery's own."""
        underway, inner = len(self.underway), getattr(self.pool, "_pool", None)
        if self.processes:
            return underway + self.processes.count()
        if self.kind == "threads":
            return underway + len(self.futures)
        if self.kind == "gevent":
            return underway + (0 if inner is None else len(inner))
        if self.kind == "eventlet":
            return underway + (0 if inner is None else inner.running())
        return underway if self.kind == "solo" else None

    def is_ghost(self, request):
        """Whether Celery lists it as running, and the pool does not have it: Celery 5.3 to 5.5 with the prefork pool go
        on listing jobs that ended after the broker was lost (celery#8541). In doubt it is none."""
        reference = request._apply_result
        if not self.processes or reference is None:
            return False
        result = reference()
        return result is None or not self.processes.has(result)


class Processes:
    """The jobs of a prefork pool. When the broker is lost, the pool forgets jobs: Celery 5.3 to 5.5 all of them, later
    versions those that a process was given and has not begun. The processes go on with them all the same. So a job is
    done when its process says so, or has died."""

    def __init__(self, pool):
        self.pool = pool
        # By the pool's own number. Strongly: the pool may hold them no more.
        self.results = {}
        self.tidy_at = 0

    def watch(self):
        handlers = self.pool._pool._result_handler.state_handlers
        on_ready = handlers[READY]

        def on_watched_ready(job, *args):
            self.results.pop(job, None)
            return on_ready(job, *args)

        handlers[READY] = on_watched_ready

    def add(self, result):
        # Most leave when they are done; those of processes that died stay until now.
        if len(self.results) >= self.tidy_at:
            self.tidy()
            self.tidy_at = 2 * len(self.results) + 100
        self.results[result._job] = result

    def tidy(self):
        for result in list(self.results.values()):
            if not self.has(result):
                self.results.pop(result._job, None)

    def count(self):
        self.tidy()
        return len(self.results)

    def has(self, result):
        # In this order: a job that ends meanwhile leaves all three, and one that is forgotten meanwhile only the first.
        inner = self.pool._pool
        if inner is not None and inner._cache.get(result._job) is result:
            return True
        if result._job not in self.results or result.ready():
            return False
        # The process that it was written to, if that was begun.
        process = result._write_to
        return process is not None and process._is_alive()


def kind_of(pool):
    """`prefork` and so on; the class's full name if it is none of Celery's own."""
    kind = type(pool)
    return POOLS.get(kind.__module__) or short(f"{kind.__module__}.{kind.__qualname__}")


def short(text):
    return str(text)[:LONGEST]
