"""A task of the sample app that runs its jobs two at a time, by celery-batches. A worker has it that includes it."""

from celery_batches import Batches

from app import app, wait_until_told, write_line


@app.task(name="sample.batch", base=Batches, flush_every=2, flush_interval=3600)
def batch(requests):
    """Works until each of its jobs is told to end."""
    jobs = [request.args[0] for request in requests]
    for job_id in jobs:
        write_line(job_id, "start", requests[0].hostname)
    for job_id in jobs:
        wait_until_told(job_id)
    for job_id in jobs:
        write_line(job_id, "end", requests[0].hostname)
