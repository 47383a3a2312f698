"""A task of the sample app that does nothing, and a remote control command that tells what a worker still has of jobs
that are over. A worker has them that includes it."""

import gc

from celery.worker import state as worker_state
from celery.worker.control import inspect_command

from app import app


@app.task(name="sample.nothing")
def nothing(job_id, seconds):
    pass



@inspect_command()
def left_behind(state, **_):
    """How many jobs were begun, and how many objects there are of each kind that stands for one job, in all of the
    process."""
    gc.collect()
    kinds = {"Message": 0, "Request": 0, "ApplyResult": 0, "Future": 0}
    for thing in gc.get_objects():
        name = type(thing).__name__
        if name in kinds:
            kinds[name] += 1
    inside = state.consumer.controller.worker_drain
    processes = inside.handed_over.processes
    kinds["received"] = len(inside.received)
    kinds["futures"] = len(inside.handed_over.futures)
    kinds["results"] = len(processes.results) if processes else 0
    return {"begun": sum(worker_state.total_count.values()), "left": sum(kinds.values())}
