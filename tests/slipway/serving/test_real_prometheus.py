"""A real Prometheus, built from its Go module, reads three releases and is asked the queries of docs/gate.md."""

import asyncio
import json
import math
import re
import socket
import subprocess
import sys
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
import yaml
from metric_pods import MODEL, MetricPod
from small_server import start_server, stop_server

from serving_protocol.metrics import PATH
from slipway.model.bake_settings import BakeSettings
from slipway.release import Bake, Gate, PrometheusQueries
from slipway.serving.bake import Asked, Look, Watch, judge_look
from slipway.serving.gate import RoundResult
from slipway.serving.prometheus import PrometheusUnread, ask_number, find_prometheus
from slipway.steps.bake import query_values
from slipway.verdict import Verdict

PROJECT = Path(__file__).parents[3]
LIMIT_S = 120  # on a busy machine; usually a few seconds
SCRAPES = 4
HASH = "$2b$04$vuGvK7t6HLPf9JWzVqvQD.NPTL0HsnCH0k2Px93o8YVXz0WiA17SW"  # bcrypt of pass-word, which protects nothing
LOGIN = {"login": "ada", "password": "pass-word"}

pytestmark = pytest.mark.slow


def documented():
    """The bake of docs/gate.md's example, as `resolve` makes it from the model file."""
    blocks = re.findall(r"```yaml\n(.*?)```", (PROJECT / "docs" / "gate.md").read_text(), re.DOTALL)
    [block] = [block for block in blocks if "prometheus:" in block]
    found = BakeSettings(**yaml.safe_load(block)["gate"]["bake"]).model_dump()
    return Bake(**{**found, "prometheus": PrometheusQueries(**found["prometheus"])})


class Served:
    """A server with the page of a pod, as TF Serving sends it."""

    def __init__(self):
        self.pod = pod = MetricPod("a")

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                page = pod.text().encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_):
                """Logs nothing."""

        self.server = start_server(Handler)
        self.address = f"127.0.0.1:{self.server.server_port}"


@pytest.fixture(scope="module")
def releases(closed_address):
    """The servers of two releases by namespace, and a third that nobody reaches."""
    served = {"healthy": Served(), "failing": Served()}
    yield {**served, "unreachable": closed_address}
    for one in served.values():
        stop_server(one.server)


@pytest.fixture(scope="module")
def closed_address():
    """An address that refuses connections: its socket does not listen."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


@pytest.fixture(scope="module")
def prometheus(releases, tmp_path_factory):
    """The port of a Prometheus that reads them, and that needs a login."""
    folder = tmp_path_factory.mktemp("prometheus")
    built = subprocess.run(
        [sys.executable, "-m", "local", "env", "prometheus"], capture_output=True, text=True, check=True, cwd=PROJECT
    )
    targets = [
        {"targets": [getattr(served, "address", served)], "labels": {"namespace": name}}
        for name, served in releases.items()
    ]
    reads = {"job_name": "tfs", "metrics_path": PATH, "scrape_interval": "250ms", "scrape_timeout": "250ms"}
    (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [{**reads, "static_configs": targets}]}))
    (folder / "web.yml").write_text(yaml.safe_dump({"basic_auth_users": {LOGIN["login"]: HASH}}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        f"{built.stdout.splitlines()[-1]}/prometheus", f"--config.file={folder}/prometheus.yml", "--log.level=warn",
        f"--web.config.file={folder}/web.yml", f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={folder}/data",
    ]  # fmt: skip
    with subprocess.Popen(command) as process:
        yield port
        process.terminate()


@pytest.fixture
async def server(prometheus, monkeypatch):
    """The Prometheus of the connection `prom`, which answers."""
    fields = {"conn_type": "http", "host": "127.0.0.1", "port": prometheus}
    monkeypatch.setenv("AIRFLOW_CONN_PROM", json.dumps({**fields, **LOGIN}))
    monkeypatch.setenv("AIRFLOW_CONN_NOBODY", json.dumps(fields))
    found = find_prometheus("prom")
    await reads(found, "1", 1)
    return found


async def reads(server, query, expected):
    """Wait until a query gives this number."""
    end_s, seen = time.monotonic() + LIMIT_S, None
    while seen != expected:
        assert time.monotonic() < end_s, f"{query}: {seen}, not {expected}"
        await asyncio.sleep(0.05)
        try:
            seen = await ask_number(server, query)
        except PrometheusUnread as unread:
            seen = str(unread)


async def scraped(server, namespace, pod):
    """Wait until the Prometheus has read what this pod has counted so far."""
    counted = sum(int(line.rpartition(" ")[2]) for line in pod.requests.lines() if not line.startswith("#"))
    await reads(server, f'sum(:tensorflow:serving:request_count{{namespace="{namespace}"}})', counted)


async def asked(server, release, namespace):
    """The answers to the documented queries about the release in this namespace."""
    queries = documented().prometheus
    there = replace(release, model=MODEL, target=replace(release.target, namespace=namespace))
    values = query_values(there, 1, "abcdefabcdef", since_s=5)
    return Asked(
        errors=await ask_number(server, queries.filled(queries.errors, values)),
        p95_ms=await ask_number(server, queries.filled(queries.p95_ms, values)),
    )


def judged(found):
    """The verdict at the end of a bake in which this was answered."""
    right = RoundResult(rest=(Verdict.passed("right"),), times_ms=(5.0,))
    return judge_look(Watch(), Look(golden=right, asked=found), Gate(bake=documented()), before=None, over=True)[1]


async def test_a_healthy_release_passes(server, releases, release):
    """No request failed: bad requests of users are none. 95 of 100 answers are in the step of 3.6 to 6.4 ms."""
    pod = releases["healthy"].pod
    for _ in range(SCRAPES):
        pod.count(*[5] * 40, 300, NOT_FOUND=3, INVALID_ARGUMENT=2)
        await scraped(server, "healthy", pod)
    found = await asked(server, release, "healthy")
    assert found.errors == 0
    assert 3.5 < found.p95_ms < 6.5
    verdict = judged(found)
    assert (verdict.outcome, "share of requests that failed 0, limit 0.01" in verdict.reason) == ("pass", True)


async def test_a_failing_release_fails(server, releases, release):
    """It fails every fifth request. The first that Prometheus sees of a status is no increase."""
    pod = releases["failing"].pod
    for _ in range(SCRAPES):
        pod.count(*[500] * 20, INTERNAL=4, DEADLINE_EXCEEDED=1)
        await scraped(server, "failing", pod)
    found = await asked(server, release, "failing")
    assert found.errors == pytest.approx(0.2, abs=0.05)
    assert 390 < found.p95_ms < 710  # the step of 500 ms
    verdict = judged(found)
    assert verdict.outcome == "fail"
    assert "share of requests that failed 0." in verdict.reason
    assert "95th percentile in ms " in verdict.reason


async def test_a_release_that_prometheus_cannot_read_has_no_numbers(server, releases, release):
    """That is not no error: the query has no result, and what could be written says so."""
    await reads(server, 'up{namespace="unreachable"}', 0)
    with pytest.raises(PrometheusUnread, match=r"0 numbers, one is needed\. Next: end the query in `or vector\(0\)`"):
        await asked(server, release, "unreachable")


ANSWERS = {
    "a scalar": ("scalar(vector(2))", 2.0),
    "no requests": ("0 / 0", math.nan),
    "endless": ("vector(1) / 0", math.inf),
}


@pytest.mark.parametrize(("query", "number"), ANSWERS.values(), ids=ANSWERS)
async def test_its_numbers_are_read(server, query, number):
    """As its API writes them, texts among them."""
    assert await ask_number(server, query) == pytest.approx(number, nan_ok=True)


REFUSED = {
    "a query that is wrong": ("sum(", "HTTP 400: .*parse error: unclosed left parenthesis"),
    "several servers": ("up", "3 numbers, one is needed. Next: join them"),
    "a range": ("up[1m]", "a result of type matrix, not one number"),
    "a text": ('"hello"', "a result of type string, not one number"),
}


@pytest.mark.parametrize(("query", "words"), REFUSED.values(), ids=REFUSED)
async def test_its_other_answers_are_no_number(server, query, words):
    """The reason has Prometheus' own words."""
    with pytest.raises(PrometheusUnread, match=words):
        await ask_number(server, query)


async def test_it_refuses_a_connection_without_a_login(server):
    """Only the connection's login and password open it."""
    with pytest.raises(PrometheusUnread, match="HTTP 401: Unauthorized"):
        await ask_number(find_prometheus("nobody"), "1")


async def test_a_prometheus_that_is_gone_has_no_number(closed_address, monkeypatch):
    """The reason says where it was asked."""
    host, port = closed_address.split(":")
    monkeypatch.setenv("AIRFLOW_CONN_PROM", json.dumps({"conn_type": "http", "host": host, "port": int(port)}))
    with pytest.raises(
        PrometheusUnread,
        match=rf"^connection prom: http://{closed_address}/api/v1/query: All connection attempts failed",
    ):
        await ask_number(find_prometheus("prom"), "1")
