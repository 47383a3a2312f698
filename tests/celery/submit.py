"""Submits jobs to the sample app, and prints one JSON line for each: {"id": …, "seconds": …}.

    submit.py --count 20 --seconds 0.5..3 --seed 7 --queue slow
    submit.py --ids a,b,c --seconds 60 --countdown 3600
    submit.py --exchange media --exchange-type topic --routing-key video.hd

The same seed gives the same jobs. A job's id is also its Celery task id, so that what a worker says of itself and what
the journal says can be laid side by side.
"""

import argparse
import json
import random
import sys
from functools import partial

from kombu import Exchange

from app import app, work


def seconds_range(text):
    """`3` or `0.5..3`."""
    low, _, high = text.partition("..")
    return float(low), float(high or low)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=1, help="how many jobs")
    parser.add_argument("--ids", help="the jobs' ids, comma-separated, instead of --count")
    parser.add_argument("--prefix", default="job", help="what made-up ids begin with")
    parser.add_argument("--seconds", type=seconds_range, default=(1.0, 1.0), help="how long each takes: 3, or 0.5..3")
    parser.add_argument("--until-told", action="store_true", help="each works until SAMPLE_TOLD has a file of its name")
    parser.add_argument("--seed", type=int, default=0, help="decides ids and durations")
    parser.add_argument("--queue", default="celery", help="where to; several: one for each job")
    parser.add_argument("--exchange", help="where to, by exchange and routing key instead of --queue")
    parser.add_argument("--exchange-type", default="direct", help="the type of that exchange")
    parser.add_argument("--routing-key", help="the routing key for that exchange")
    parser.add_argument("--priority", type=int, help="how urgent they are, as the broker takes it")
    parser.add_argument("--unnamed", action="store_true", help="give them ids of Celery's own; --ids are arguments only")
    parser.add_argument("--task", default="sample.work", help="the task that they are of")
    parser.add_argument("--countdown", type=float, help="run them only so many seconds from now")
    parser.add_argument("--pickled", action="store_true", help="with an argument that JSON cannot hold")
    options = parser.parse_args()

    random_ = random.Random(options.seed)
    ids = options.ids.split(",") if options.ids else [
        f"{options.prefix}-{options.seed}-{number:04}" for number in range(options.count)
    ]
    queues = options.queue.split(",")
    exchange = Exchange(options.exchange, type=options.exchange_type) if options.exchange else None
    send = work.apply_async
    if options.task != work.name:
        send = partial(app.send_task, options.task, ignore_result=True)
    for number, job_id in enumerate(ids):
        seconds = None if options.until_told else round(random_.uniform(*options.seconds), 3)
        where = {"queue": queues[number % len(queues)]}
        if exchange:
            where = {"exchange": exchange.name, "routing_key": options.routing_key, "declare": [exchange]}
        odd = {"kwargs": {"odd": {1, 2}}, "serializer": "pickle"} if options.pickled else {}
        task_id = None if options.unnamed else job_id
        how = {"countdown": options.countdown, "priority": options.priority, **odd, **where}
        send((job_id, seconds), task_id=task_id, **how)
        json.dump({"id": job_id, "seconds": seconds}, sys.stdout)
        print(flush=True)


if __name__ == "__main__":
    main()
