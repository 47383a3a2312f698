"""Asks workers of the sample app by Celery's own client, and prints one JSON object: the answers by node.

    ask.py worker_drain worker@one worker@two
    ask.py cancel_consumer worker@one --arguments '{"queue": "celery"}'
"""

import argparse
import json

from app import app

# Seconds. It ends as soon as all have answered.
PATIENCE = 3


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("command", help="the remote control command")
    parser.add_argument("nodes", nargs="+", help="whom to ask")
    parser.add_argument("--arguments", type=json.loads, default={}, help="the command's arguments, a JSON object")
    options = parser.parse_args()
    answers = app.control.broadcast(
        options.command, arguments=options.arguments, destination=options.nodes, reply=True, timeout=PATIENCE,
        limit=len(options.nodes),
    )
    print(json.dumps({node: answer for reply in answers or () for node, answer in reply.items()}))


if __name__ == "__main__":
    main()
