"""A shared part of the stand is really stopped: engine, registry, API server, kubelet. Refused while another checkout is up."""

import threading
import time
from contextlib import contextmanager

import pytest

from local.parts import shared
from local.programs.supervision import start, stop
from local.settings import settings_here

DOWN_S = 30
RESTART_S = 2

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alone]


@pytest.fixture(scope="module")
def alone(stand):
    """The shared parts, used by this checkout only."""
    with shared.held_alone(settings_here()):
        yield settings_here()


@pytest.fixture(scope="module")
def harness(make_harness, alone):
    """A harness with content a live."""
    harness = make_harness("faults-outages")
    harness.run()
    yield harness
    harness.end()


@contextmanager
def stopped(settings, name, seconds=DOWN_S):
    """Stop a shared part for so many seconds; the block ends no earlier."""
    stop(shared.supervisor(settings), name)
    timer = threading.Timer(seconds, start, (shared.supervisor(settings), name))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_engine_registry_and_api_server_stop_during_one_run(harness, alone, write_row):
    """The run waits or retries by itself each time, its release goes live, and nothing is left of the first tries."""
    harness.content("b")
    with harness.in_background() as background:
        background.logs("task_id=build_image")
        began_s = time.monotonic()
        with stopped(alone, "dockerd", RESTART_S):
            pass
        background.logs("task_id=push")
        with stopped(alone, "registry"):
            pass
        background.logs("task_id=wait_for_rollout")
        with stopped(alone, "api-server"):
            pass
        run = background.ends()
    harness.assert_live(run, version=2)
    write_row(
        "Docker Engine restarted during the build, the registry down for 30 s during the push, then the API server for 30 s"
        " during the rollout",
        "the release is live, one record",
        good_s=time.monotonic() - began_s,
    )


def test_the_kubelet_stops_during_the_rollout(harness, alone, write_row):
    """The run waits by itself, and its release goes live."""
    version = harness.serves()["version"]
    with harness.container(env=[{"name": "ROUND", "value": "kubelet"}]), harness.in_background() as background:
        background.logs("task_id=wait_for_rollout")
        began_s = time.monotonic()
        with stopped(alone, "kubelet"):
            pass
        run = background.ends()
    harness.assert_live(run, version=version)
    write_row(
        "kubelet stopped for 30 s during the rollout",
        "the release is live, one record",
        good_s=time.monotonic() - began_s,
    )
