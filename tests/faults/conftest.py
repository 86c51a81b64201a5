"""What the fault suite shares with the other tests on the stand, and the table that it writes."""

import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from road import Road
from table import PAGE, place

from local.locks import locked
from local.settings import settings_here


@pytest.fixture
def tell(request):
    """Puts a row into docs/faults.md, if the run is to write it: `tell(fault, holds, detected_s, good_s, lost)`."""

    def row(fault, holds, detected_s=None, good_s=None, lost=None):
        cells = [
            fault,
            holds,
            *("-" if s is None else f"{s:.0f}" for s in (detected_s, good_s)),
            "-" if lost is None else lost,
        ]
        print("row:", *cells, sep=" | ")
        if os.environ.get("SLIPWAY_FAULTS_TABLE"):
            with locked(settings_here().home_run / "faults.lock"):
                PAGE.write_text(place(PAGE.read_text(), [cells]))

    return row


@pytest.fixture(scope="session")
def make_road(tmp_path_factory, surroundings, stand, kubectl, engine):
    """Makes a road for a model: `make_road(name, **changes of its file)`; taken away by `end`, or by the next of its name."""

    def make(model, **changes):
        root = tmp_path_factory.mktemp(model)
        return Road.make(root, surroundings, stand, kubectl, engine, model=model, **changes)

    return make


LOAD = Path(__file__).with_name("load.py")


@pytest.fixture
def under_load(tmp_path):
    """Asks a road's public address as long as the block; what was seen is in the dict that it gives."""

    @contextmanager
    def load(road, *, rate=5, limit_s=600):
        picture = road.file.parent / road.model / "golden" / "seven.png"
        command = [
            sys.executable,
            LOAD,
            road.address(),
            f"/v1/models/{road.model}:predict",
            picture,
            "7",
            "0.8",
            rate,
            limit_s,
        ]
        seen = {}
        with subprocess.Popen(
            [str(word) for word in command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout.readline() == "asking\n"
            began_s = time.monotonic()
            try:
                yield seen
            finally:
                out, _ = process.communicate(timeout=60)
        seen |= json.loads(out) | {"seconds": time.monotonic() - began_s}

    return load
