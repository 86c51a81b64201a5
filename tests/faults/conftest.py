"""What the fault suite shares with the other tests on the stand, and the table that it writes."""

import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from road import Road
from table import PAGE, place_rows

from local.programs.locks import locked
from local.settings import settings_here

LOAD = Path(__file__).with_name("load.py")


class Asking:
    """Requests at a model's public address in a process of their own, until `end`, or for `limit_s`."""

    def __init__(self, place, *, rate, limit_s):
        words = [sys.executable, LOAD, *place, "7", "0.8", rate, limit_s]
        self.process = subprocess.Popen(
            [str(word) for word in words], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout.readline() == "asking\n"

    def end(self):
        """What was seen, by way of connecting."""
        out, _ = self.process.communicate(timeout=60)
        return json.loads(out)


@pytest.fixture
def tell(request):
    """Puts a row into docs/faults.md, if the run is to write it: `tell(fault, holds, detected_s, good_s, lost)`.

    Where the model of the test's `road` or `runs` serves before the fault, it is asked with new connections as long as the
    test goes, or since its last row: what was lost is in the row, and an answer that was wrong fails the test.
    """
    subjects = [request.getfixturevalue(name) for name in ("road", "runs") if name in request.fixturenames]
    place = subjects[0].asked() if subjects and "under_load" not in request.fixturenames else None
    asking = [Asking(place, rate=2, limit_s=900)] if place else []

    def row(fault, holds, detected_s=None, good_s=None, lost=None):
        if asking:
            seen = asking.pop().end()["new connections"]
            assert (seen["requests"] > 0, seen["wrong"]) == (True, [])
            lost = f"{len(seen['failed'])} of {seen['requests']}"
            asking.append(Asking(subjects[0].asked(), rate=2, limit_s=900))
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
    for one in asking:
        one.end()


@pytest.fixture(scope="session")
def make_road(tmp_path_factory, surroundings, stand, kubectl, engine):
    """Makes a road for a model: `make_road(name, **changes of its file)`; taken away by `end`, or by the next of its name."""

    def make(model, **changes):
        root = tmp_path_factory.mktemp(model)
        return Road.make(root, surroundings, stand, kubectl, engine, model=model, **changes)

    return make


@pytest.fixture
def under_load():
    """Asks a road's public address as long as the block; what was seen is in the dict that it gives."""

    @contextmanager
    def load(road, *, rate=5, limit_s=600):
        asking, seen = Asking(road.asked(), rate=rate, limit_s=limit_s), {}
        try:
            yield seen
        finally:
            seen |= asking.end()

    return load
