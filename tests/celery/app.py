"""The sample Celery app: one kind of job that takes its time, and leaves a trace of its life that can be read from outside.

Settings come from the environment, so that one app serves every test:

    CELERY_BROKER_URL   the broker (Celery itself reads this one)
    SAMPLE_SETTINGS     a JSON object of any other Celery settings, such as {"task_acks_late": true}
    SAMPLE_JOURNAL      a folder in which each job leaves a file of its own (see `work`)
    SAMPLE_TOLD         a folder in which jobs that work until they are told look for a file of their own
    SAMPLE_HOARD        so many seconds: a strategy of its own keeps each job so long before the worker knows of it, as that of
                        celery-batches does
    SAMPLE_HTTP         if it is set, the worker answers over HTTP, by contrib/celery/worker_drain_http.py
"""

import json
import os
import sys
import time
from pathlib import Path

from celery import Celery

app = Celery("sample", broker=os.environ.get("CELERY_BROKER_URL", "redis://127.0.0.1:6379/0"))
app.conf.update(
    # Nobody reads results; a result backend would be one more thing that can fail.
    task_ignore_result=True,
    broker_connection_retry_on_startup=True,
    # A worker that lost its broker tries again for as long as the test takes.
    broker_connection_max_retries=None,
    worker_send_task_events=False,
)
app.conf.update(json.loads(os.environ.get("SAMPLE_SETTINGS") or "{}"))

if os.environ.get("SAMPLE_HTTP"):
    sys.path.append(str(Path(__file__).parents[2] / "contrib/celery"))
    from worker_drain_http import install

    install(app)


def write_line(job_id, word, node):
    """Appends one line to the job's own file, in one write: it is there as a whole or not at all, and at once."""
    folder = os.environ.get("SAMPLE_JOURNAL")
    if not folder:
        return
    line = f"{word} {time.time():.6f} {os.getpid()} {node}\n".encode()
    file = os.open(Path(folder) / job_id, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line)
    finally:
        os.close(file)


def wait_until_told(job_id):
    """Until the folder SAMPLE_TOLD has a file of the job's name."""
    told = Path(os.environ["SAMPLE_TOLD"]) / job_id
    while not told.exists():
        time.sleep(0.05)


@app.task(name="sample.work", bind=True)
def work(self, job_id, seconds, odd=None):
    """Works for so many seconds, or, if that is None, until it is told. A job that is killed has no end line; one that
    ran twice has two start lines."""
    write_line(job_id, "start", self.request.hostname)
    if seconds is None:
        wait_until_told(job_id)
    else:
        time.sleep(seconds)
    write_line(job_id, "end", self.request.hostname)


if os.environ.get("SAMPLE_HOARD"):

    def hoarding(task, app, consumer):
        """A strategy (Celery: `Task.Strategy`) that keeps what comes for a while, in no list."""
        from celery.worker.strategy import default

        take = default(task, app, consumer)

        def keep(*delivery):
            consumer.timer.call_after(float(os.environ["SAMPLE_HOARD"]), take, delivery)

        return keep

    work.Strategy = hoarding
