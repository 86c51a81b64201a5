"""A shared part is really gone for a while: engine, registry, API server, kubelet. Refused while another checkout is up."""

import threading
import time
from contextlib import contextmanager

import pytest

from local.parts import shared
from local.programs.supervision import start, stop
from local.settings import settings_here

DOWN_S = 30

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alone]


@pytest.fixture(scope="module")
def alone(stand):
    """The shared parts for this checkout alone."""
    with shared.held_alone(settings_here()):
        yield settings_here()


@pytest.fixture(scope="module")
def road(make_road, alone):
    """A road on which A is live."""
    road = make_road("faults-outages")
    road.run()
    yield road
    road.end()


@contextmanager
def gone(settings, name, seconds=DOWN_S):
    """A shared part is stopped, and comes back after so many seconds."""
    stop(shared.supervisor(settings), name)
    timer = threading.Timer(seconds, start, (shared.supervisor(settings), name))
    timer.start()
    try:
        yield
    finally:
        timer.join()


CASES = {
    "registry": ("registry down for 30 s during push", "task_id=push", 0),
    "dockerd": ("Docker Engine restarted mid-build", "task_id=build_image", 2),
    "api-server": ("API server down for 30 s during the rollout", "task_id=wait_for_rollout", 0),
    "kubelet": ("kubelet stopped for 30 s during the rollout", "task_id=wait_for_rollout", 0),
}


@pytest.mark.parametrize("part", CASES)
def test_a_part_is_gone(road, alone, tell, part):
    """The run waits or tries again by itself and brings its release, and nothing is left of the first try."""
    fault, instant, down_s = CASES[part]
    conf = {"force": True} if part in {"registry", "dockerd"} else {}
    with road.container(env=[{"name": "ROUND", "value": part}]), road.beside(**conf) as beside:
        beside.says(instant)
        began_s = time.monotonic()
        with gone(alone, part, down_s or DOWN_S):
            pass
        run = beside.ends()
    road.has_brought(run, version=1)
    tell(fault, "the release is live, one record", good_s=time.monotonic() - began_s)
