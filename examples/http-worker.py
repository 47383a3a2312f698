"""A worker that is not Celery and can be drained: the contract of docs/http-worker.md with nothing but Python itself.

Jobs are the files of the folder `jobs`, its only queue; each is worked on for 10 seconds. WORKER_TOKEN is its token.
"""

import hmac
import json
import os
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

lock = threading.Lock()  # taking a job and reporting it are one moment each
state = {"instance": uuid.uuid4().hex, "startedAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
         "queues": ["jobs"], "active": [], "reserved": [], "scheduled": []}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        with lock:
            self.answer(200, state) if self.is_allowed() else self.answer(401, {"error": "the token is not mine"})

    def do_POST(self):
        order = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            if not self.is_allowed():
                self.answer(401, {"error": "the token is not mine"})
            elif order["instance"] != state["instance"]:
                self.answer(409, {"error": "this is another instance"})
            else:
                if "jobs" in order["queues"]:
                    state["queues"] = [] if self.path.endswith("/cancel") else ["jobs"]
                self.answer(200, {})

    def is_allowed(self):
        shown = self.headers.get("Authorization", "")
        return hmac.compare_digest(shown.encode(), f"Bearer {os.environ['WORKER_TOKEN']}".encode())

    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())


threading.Thread(target=ThreadingHTTPServer(("", int(os.environ.get("PORT", 8765))), Handler).serve_forever,
                 daemon=True).start()
while True:
    with lock:
        job = next(iter(sorted(Path("jobs").iterdir())), None) if state["queues"] else None
        state["active"] = [{"id": job.name, "name": "work"}] if job else []
    time.sleep(float(os.environ.get("WORK_SECONDS", 10)) if job else 0.2)
    if job:
        job.unlink()
