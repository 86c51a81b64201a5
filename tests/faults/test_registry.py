"""A registry in trouble, by a door in front of the real one: for the engine that pushes, and for the node that pulls."""

import re
import threading
import time

import pytest
from doors import HttpDoor

DOWN_S = 30
WORDS = {404: "not found", 401: "ImagePullBackOff"}

pytestmark = [pytest.mark.stand, pytest.mark.faults]


@pytest.fixture(scope="module")
def door(stand):
    """The door to the stand's registry."""
    door = HttpDoor(f"http://{stand['registry'].split('/', 1)[0]}")
    yield door
    door.close()


@pytest.fixture(scope="module")
def road(make_road, door, stand):
    """A road on which A is live, pushed straight to the registry: its layers are there; what comes goes through the door."""
    road = make_road("faults-registry")
    road.run()
    with road.changed(image__repository=f"{door.address}/{stand['registry'].split('/', 1)[1]}/faults-registry"):
        road.run()
        yield road
    road.end()


@pytest.fixture
def good(road, door):
    """What serves; the door lets everything through afterwards."""
    yield road.serves()
    door.answer = lambda *_: None


def is_node(headers):
    """Whether it is the node's containerd that asks."""
    return headers.get("User-Agent", "").startswith("containerd/")


@pytest.mark.parametrize("status", WORDS)
def test_the_node_gets_no_image(road, door, good, tell, status):
    """An image that the node cannot pull, because it is missing there or denied, is given up; the release before it serves."""
    road.content("b" if status == 404 else "c")

    def refuse(method, path, headers):
        return (status, b'{"errors": []}') if is_node(headers) and "/manifests/" in path else None

    door.answer = refuse
    run = road.run(green=False)
    road.has_given_up(run, words=WORDS[status], good=good)
    tell(
        "image missing" if status == 404 else "image denied",
        "the release before it serves",
        run.detect_s(),
        run.good_s(),
    )


@pytest.mark.parametrize("fault", ["registry answers 503 during push", "registry down for 30 s during push"])
def test_the_registry_is_in_trouble_during_the_push(road, door, good, tell, fault):
    """A push that a registry in trouble refuses is tried again by itself, and what it brings then is whole."""
    began = threading.Event()
    until_s = 0.0

    def trouble(method, path, headers):
        nonlocal until_s
        if not began.is_set() and re.search(r"/blobs/", path) and method in {"HEAD", "POST"} and not is_node(headers):
            began.set()
            until_s = time.monotonic() + DOWN_S
        if time.monotonic() > until_s:
            return None
        return (503, b'{"errors": [{"code": "UNAVAILABLE", "message": "trouble"}]}') if "503" in fault else (0, b"")

    road.content("a")
    door.answer = trouble
    with road.container(env=[{"name": "ROUND", "value": fault[:12]}]):
        run = road.run(force=True)
    assert began.is_set()
    road.has_brought(run, version=1)
    tell(fault, "pushed by the next try, live", good_s=run.seconds)
