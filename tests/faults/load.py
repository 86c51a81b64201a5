"""Asks a served model steadily and checks every answer: `load.py URL PATH IMAGE LABEL LEAST RATE LIMIT_S`.

Three ways side by side, each RATE requests a second: a new connection for each request, connections kept for YOUNG_S and
closed between two requests, and one that is never closed by us. Ends when standard input ends, or after LIMIT_S; then prints what it saw as JSON.
A request fails without an answer of status 200 in TIMEOUT_S; an answer is wrong with another label or less confidence than LEAST.
"""

import base64
import http.client
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

YOUNG_S = 8  # less than the drain, which is 10 s in the base's manifests
TIMEOUT_S = 10
LARGEST_RATE = 50
LONGEST_S = 1200


class Way:
    """Requests in one way."""

    def __init__(self, host, path, body, expected, *, keep_s):
        self.host, self.path, self.body = host, path, body
        self.label, self.least = expected
        self.keep_s = keep_s
        self.connection, self.born_s = None, 0.0
        self.took_s, self.failed, self.wrong = [], [], []

    def ask(self):
        """One request, its answer checked."""
        began_s = time.monotonic()
        if self.connection is not None and began_s - self.born_s > self.keep_s:
            self.hang_up()
        try:
            if self.connection is None:
                self.connection, self.born_s = http.client.HTTPConnection(self.host, timeout=TIMEOUT_S), began_s
            self.connection.request("POST", self.path, self.body)
            answer = self.connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self.fail(f"{type(error).__name__}: {error}")
            return
        if answer.status != 200:
            self.fail(f"HTTP {answer.status}: {said[:200]!r}")
            return
        self.took_s.append(time.monotonic() - began_s)
        found = json.loads(said)["predictions"][0]
        if found["label"] != self.label or found["confidence"] < self.least:
            self.wrong.append({"at": time.time(), "why": found})
        if self.keep_s == 0:
            self.hang_up()

    def fail(self, why):
        """Remember a request without an answer; the next gets another connection."""
        self.failed.append({"at": time.time(), "why": why})
        self.hang_up()

    def hang_up(self):
        """The next request gets a connection of its own."""
        if self.connection is not None:
            self.connection.close()
            self.connection = None

    def steadily(self, rate, ended, limit_s):
        """Ask at this rate until it is ended; an answer that is late does not make later ones more."""
        end_s = time.monotonic() + limit_s
        next_s = time.monotonic()
        while not ended.is_set() and time.monotonic() < end_s:
            self.ask()
            next_s = max(next_s + 1 / rate, time.monotonic())
            ended.wait(next_s - time.monotonic())
        self.hang_up()

    def seen(self):
        """Counts, milliseconds and the failures."""
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
    """Ask until standard input ends; what was seen, by way."""
    url, path, image, label, least, rate, limit_s = words
    host = urlsplit(url).netloc
    if not host.startswith("127."):
        raise SystemExit(f"{url}: only loopback is asked")
    body = json.dumps({"instances": [base64.urlsafe_b64encode(Path(image).read_bytes()).decode()]})
    ways = {
        name: Way(host, path, body, (label, float(least)), keep_s=keep_s)
        for name, keep_s in (("new connections", 0), (f"kept {YOUNG_S} s", YOUNG_S), ("kept for ever", float("inf")))
    }
    ended = threading.Event()
    limits = (min(float(rate), LARGEST_RATE), ended, min(float(limit_s), LONGEST_S))
    threads = [threading.Thread(target=way.steadily, args=limits) for way in ways.values()]
    for thread in threads:
        thread.start()
    print("asking", flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    for thread in threads:
        thread.join()
    return {name: way.seen() for name, way in ways.items()}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1:])))
