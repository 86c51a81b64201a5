"""Fixtures of the fault suite: a harness for each model, the client that sends requests, and the rows of docs/faults.md."""

import os
from contextlib import contextmanager, suppress
from urllib.error import HTTPError

import pytest
from load import WAYS
from load_client import Client
from refresh_harness import RefreshHarness
from table import PAGE, place_rows

from local.programs.locks import locked
from local.settings import settings_here


@pytest.fixture
def write_row(request):
    """Writes a row into docs/faults.md, if the run is to write it: `write_row(fault, holds, detected_s, good_s, lost)`.

    If the model of the test's `harness` or `runs` serves before the fault, a client sends requests on new connections
    during the test, or since its last row. The row has the number of requests lost; a wrong answer fails the test.
    """
    subjects = [request.getfixturevalue(name) for name in ("harness", "runs") if name in request.fixturenames]
    target = subjects[0].load_target() if subjects and "under_load" not in request.fixturenames else None
    clients = [Client(target, rate=2, limit_s=900)] if target else []

    def row(fault, holds, detected_s=None, good_s=None, lost=None):
        if clients:
            seen = clients.pop().end()["new connections"]
            assert (seen["requests"] > 0, seen["wrong"]) == (True, [])
            lost = f"{len(seen['failed'])} of {seen['requests']}"
            clients.append(Client(subjects[0].load_target(), rate=2, limit_s=900))
        cells = [
            fault,
            holds,
            *("-" if s is None else f"{s:.0f}" for s in (detected_s, good_s)),
            "-" if lost is None else lost,
        ]
        print("row:", *cells, sep=" | ")
        if os.environ.get("SLIPWAY_FAULTS_TABLE"):
            with locked(settings_here().home_run / "faults.lock"):
                PAGE.write_text(place_rows(PAGE.read_text(), [cells]))

    yield row
    for client in clients:
        client.end()


@pytest.fixture(scope="session")
def make_harness(tmp_path_factory, surroundings, stand, kubectl, engine):
    """Makes a harness: `make_harness(model, **changes of its model file)`. `end` removes it, and so does the next of its name."""

    def make(model, **changes):
        root = tmp_path_factory.mktemp(model)
        return RefreshHarness.make(root, surroundings, stand, kubectl, engine, model=model, **changes)

    return make


@pytest.fixture(scope="session")
def released(make_harness):
    """A harness with content a live, for the files whose faults are made by a proxy. Each begins and ends with content a live."""
    harness = make_harness("faults-proxies")
    harness.run()
    yield harness
    harness.end()


@pytest.fixture
def under_load():
    """Sends requests to a harness's public address during the block; the dict that it yields then has what was seen."""

    @contextmanager
    def load(harness, *, rate=5, limit_s=600):
        client, seen = Client(harness.load_target(), rate=rate, limit_s=limit_s, ways=WAYS), {}
        try:
            yield seen
        finally:
            seen |= client.end()

    return load


@pytest.fixture(scope="module")
def every_wait_defers(airflow_api):
    """No task polls itself before it defers, in the stand's Airflow."""
    name = "slipway_look_s"
    with suppress(HTTPError):  # a killed test run has left it
        airflow_api(f"/variables/{name}", "DELETE")
    airflow_api("/variables", "POST", {"key": name, "value": "0"})
    yield
    airflow_api(f"/variables/{name}", "DELETE")
