"""REST requests to a server of the conformance suite, and its metrics."""

import http.client
import json

METRIC = ":tensorflow:serving:"


def ask(server, method, path, body=None, headers=(), *, connection=None):
    """One REST request; (status, content type, body as bytes)."""
    used = connection or http.client.HTTPConnection(*server.rest, timeout=60)
    used.request(method, path, body, dict(headers))
    answer = used.getresponse()
    result = answer.status, answer.headers["Content-Type"], answer.read()
    if connection is None:
        used.close()
    return result


def parsed(data):
    """A parsed JSON body. NaN and Infinity become strings; bytes that are not UTF-8 become surrogates."""
    return json.loads(data.decode(errors="surrogateescape"), parse_constant=str)


def predict(server, body, model="plain"):
    """One prediction over REST; (status, parsed body)."""
    status, _, data = ask(server, "POST", f"/v1/models/{model}:predict", json.dumps(body).encode())
    return status, parsed(data)


def metric(server, name, *labels):
    """The value of a metric, or 0 if it is not on the page."""
    page = ask(server, "GET", "/monitoring/prometheus/metrics")[2].decode()
    lines = [line for line in page.splitlines() if line.startswith((f"{METRIC}{name}{{", f"{METRIC}{name} "))]
    return sum(float(line.rpartition(" ")[2]) for line in lines if all(label in line for label in labels))
