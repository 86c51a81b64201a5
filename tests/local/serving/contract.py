"""A client of a server of digits-vit, and the check of its answers."""

import http.client
import json
import urllib.parse
from dataclasses import dataclass

import pytest

MODEL = "digits-vit"
NAMES = ("three", "seven", "eight")
ANSWER_LIMIT_S = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """The two addresses of a server, and the version that it serves."""

    rest: str
    grpc: str
    version: int

    def ask(self, method, path, body=None, headers=()):
        """Send one REST request on a new connection. Returns (status, parsed body)."""
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.rest).netloc, timeout=ANSWER_LIMIT_S)
        try:
            return exchange(connection, method, path, body, headers)
        finally:
            connection.close()

    def predict(self, body, path=f"/v1/models/{MODEL}:predict", headers=()):
        """Send one predict request over REST. Returns (status, parsed body)."""
        return self.ask("POST", path, body if isinstance(body, bytes) else json.dumps(body).encode(), headers)


def exchange(connection, method, path, body=None, headers=()):
    """Send one request on an open connection. Returns (status, parsed body)."""
    connection.request(method, path, body, dict(headers))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


def assert_answers(case, answer):
    """Check that the answer has the case's label and 🤗's confidence."""
    assert set(answer) == {"label", "confidence"}
    assert answer["label"] == case["label"]
    assert answer["confidence"] == pytest.approx(case["reference"]["confidence"], abs=case["reference"]["tolerance"])
