"""Runs load.py next to a test."""

import json
import subprocess
import sys
from pathlib import Path

CLIENT = Path(__file__).with_name("load.py")


class Client:
    """Sends requests to a model's public address from a process of its own, until `end` or for `limit_s`."""

    def __init__(self, target, *, rate, limit_s, ways=("new connections",)):
        words = [sys.executable, CLIENT, *target, "7", "0.8", rate, limit_s, *ways]
        self.process = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "started\n"

    def end(self):
        """What the client saw, for each way of connecting."""
        out, _ = self.process.communicate(timeout=60)
        return json.loads(out)
