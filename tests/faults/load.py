"""Sends steady requests to a served model and checks every answer: `load.py URL PATH IMAGE LABEL LEAST RATE LIMIT_S WAY…`.

Up to three ways at once, each RATE requests a second: a new connection for each request; connections kept for YOUNG_S and closed
between two requests; one connection that the client never closes. It ends when standard input ends, or after LIMIT_S, and
prints what it saw as JSON. A request fails without status 200 within TIMEOUT_S. An answer is wrong if its label is not LABEL
or its confidence is below LEAST.
"""

import base64
import http.client
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

YOUNG_S = 8  # shorter than the drain, which is 10 s in the base's manifests
TIMEOUT_S = 10
WAYS = {"new connections": 0, f"kept {YOUNG_S} s": YOUNG_S, "never closed": float("inf")}  # name: seconds kept
LARGEST_RATE = 50
LONGEST_S = 1200


class Way:
    """Requests over one kind of connection."""

    def __init__(self, host, path, body, expected, *, keep_s):
        self.host, self.path, self.body = host, path, body
        self.label, self.least = expected
        self.keep_s = keep_s
        self.connection, self.opened_s = None, 0.0
        self.took_s, self.failed, self.wrong = [], [], []

    def ask(self):
        """Send one request and check its answer."""
        began_s = time.monotonic()
        if self.connection is not None and began_s - self.opened_s > self.keep_s:
            self.close()
        try:
            if self.connection is None:
                self.connection, self.opened_s = http.client.HTTPConnection(self.host, timeout=TIMEOUT_S), began_s
            self.connection.request("POST", self.path, self.body)
            answer = self.connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.fail(f"{type(error).__name__}: {error}")
            return
        if answer.status != 200:
            self.fail(f"HTTP {answer.status}: {body[:200]!r}")
            return
        self.took_s.append(time.monotonic() - began_s)
        found = json.loads(body)["predictions"][0]
        if found["label"] != self.label or found["confidence"] < self.least:
            self.wrong.append({"at": time.time(), "why": found})
        if self.keep_s == 0:
            self.close()

    def fail(self, why):
        """Count a failed request; the next one opens a new connection."""
        self.failed.append({"at": time.time(), "why": why})
        self.close()

    def close(self):
        """Close the connection; the next request opens a new one."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def ask_steadily(self, rate, ended, limit_s):
        """Send requests at this rate until `ended`; after a late answer, no requests are made up for."""
        end_s = time.monotonic() + limit_s
        next_s = time.monotonic()
        while not ended.is_set() and time.monotonic() < end_s:
            self.ask()
            next_s = max(next_s + 1 / rate, time.monotonic())
            ended.wait(next_s - time.monotonic())
        self.close()

    def seen(self):
        """Counts, failures, wrong answers and times in milliseconds."""
        took = sorted(self.took_s) or [0.0]
        shown = {
            f"p{part}_ms": round(1000 * took[min(len(took) - 1, len(took) * part // 100)], 1) for part in (50, 90, 99)
        }
        count = len(self.took_s) + len(self.failed)
        return {
            "requests": count,
            "failed": self.failed,
            "wrong": self.wrong,
            **shown,
            "most_ms": round(1000 * took[-1], 1),
        }


def main(words):
    """Send requests until standard input ends: what was seen, for each way."""
    url, path, image, label, least, rate, limit_s, *wanted = words
    host = urlsplit(url).netloc
    if not host.startswith("127."):
        raise SystemExit(f"{url}: requests go to loopback only")
    body = json.dumps({"instances": [base64.urlsafe_b64encode(Path(image).read_bytes()).decode()]})
    ways = {name: Way(host, path, body, (label, float(least)), keep_s=WAYS[name]) for name in wanted}
    ended = threading.Event()
    limits = (min(float(rate), LARGEST_RATE), ended, min(float(limit_s), LONGEST_S))
    threads = [threading.Thread(target=way.ask_steadily, args=limits) for way in ways.values()]
    for thread in threads:
        thread.start()
    print("started", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    for thread in threads:
        thread.join()
    return {name: way.seen() for name, way in ways.items()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
