"""What one would write without worker-drain, by Celery's own Python API, for `make bench` to compare with.

    rival.py inspect --looks 20 --nodes a@x,b@x     prints the seconds that each look took, as a JSON list
    rival.py inspect --looks 5                      the same without telling which nodes there are

A look asks the four questions that worker-drain asks: queues, reserved, active and scheduled jobs.

    rival.py drain --node a@x --queue celery        cancels, waits until the node has no active job, prints the time
"""

import argparse
import json
import time

from app import app


def inspect(options):
    nodes = options.nodes.split(",") if options.nodes else None
    # Told whom it asks, it ends when all have answered; else it waits for its whole time-out, one second.
    limits = {"destination": nodes, "limit": len(nodes), "timeout": 30} if nodes else {}
    took = []
    for _ in range(options.looks + 1):
        began = time.perf_counter()
        look = app.control.inspect(**limits)
        answers = [look.active_queues(), look.reserved(), look.active(), look.scheduled()]
        took.append(time.perf_counter() - began)
        heard = min(len(answer or ()) for answer in answers)
        assert heard and (not nodes or heard == len(nodes)), f"{heard} nodes answered"
    print(json.dumps(took[1:]))  # the first one connects


def drain(options):
    """A pipeline's way: look each second whether anything is active. It does not ask for what is reserved, does not read
    the cancel back and does not look twice, so that a job may be cut; it is here for its speed alone."""
    app.control.cancel_consumer(options.queue, destination=[options.node], reply=True)
    print("cancelled", flush=True)
    while True:
        answers = app.control.inspect(destination=[options.node], limit=1, timeout=5).active()
        if answers is not None and answers.get(options.node) == []:
            print(json.dumps(time.time()), flush=True)
            return
        time.sleep(1)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("inspect")
    command.add_argument("--looks", type=int, default=20)
    command.add_argument("--nodes")
    command.set_defaults(run=inspect)
    command = commands.add_parser("drain")
    command.add_argument("--node", required=True)
    command.add_argument("--queue", default="celery")
    command.set_defaults(run=drain)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
