"""A registry with faults, made by a proxy in front of it: for the node that pulls, and for the engine that pushes."""

import time

import pytest
from closable_proxies import HttpProxy

FAULT_S = 15  # each of two: the engine itself tries again after 5, 10, 15 and 20 s, and then gives up
FAULTS = {404: ("image missing", "not found"), 401: ("image denied", "401 Unauthorized")}
UNAVAILABLE = b'{"errors": [{"code": "UNAVAILABLE", "message": "trouble"}]}'
HANG_UP = 0

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alongside]


@pytest.fixture(scope="module")
def proxy(stand):
    """The proxy in front of the stand's registry."""
    proxy = HttpProxy(f"http://{stand['registry'].split('/', 1)[0]}")
    yield proxy
    proxy.close()


@pytest.fixture(scope="module")
def harness(released, proxy, stand):
    """The harness, with an image repository behind the proxy. Content a was pushed directly, so the registry has its layers."""
    place = stand["registry"].split("/", 1)[1]
    with released.changed(image__repository=f"{proxy.address}/{place}/{released.model}"):
        yield released


@pytest.fixture
def good(harness, proxy):
    """What serves; the proxy passes everything on afterwards."""
    yield harness.serves()
    proxy.answer = lambda *_: None


def is_node(headers):
    """Whether the node's containerd sent the request."""
    return headers.get("User-Agent", "").startswith("containerd/")


class Trouble:
    """Answers 503 to the engine for FAULT_S from its first request for a blob, then hangs up for FAULT_S from its next one."""

    def __init__(self):
        self.ends_s = {}  # of each fault that the engine has met

    def __call__(self, method, path, headers):
        """The answer in place of the registry's; None passes the request on."""
        is_blob = "/blobs/" in path and method in {"HEAD", "POST"}
        if is_node(headers) or not (self.ends_s or is_blob):
            return None
        for fault in (503, HANG_UP):
            if time.monotonic() < self.ends_s.setdefault(fault, time.monotonic() + FAULT_S):
                return fault, UNAVAILABLE
        return None


@pytest.mark.parametrize("status", FAULTS)
def test_the_node_cannot_pull_the_image(harness, proxy, good, write_row, status):
    """A release whose image is missing or denied is given up; the release before it serves."""
    fault, words = FAULTS[status]

    def refuse(method, path, headers):
        return (status, b'{"errors": []}') if is_node(headers) and "/manifests/" in path else None

    proxy.answer = refuse
    run = harness.run(green=False)
    harness.assert_given_up(run, words=words, good=good)
    write_row(fault, "the release before it serves", run.detect_s(), run.good_s())


def test_the_registry_fails_during_the_push(harness, proxy, good, write_row):
    """The push is retried without anybody's help, and what is pushed then is complete."""
    version = 1 + len(list((harness.root / "store" / "versions" / harness.model).iterdir()))
    harness.content("c")
    proxy.answer = trouble = Trouble()
    run = harness.run()
    assert set(trouble.ends_s) == {503, HANG_UP}
    harness.assert_live(run, version=version)
    write_row(
        "registry answers 503, then hangs up, for 30 s in all, during the push",
        "pushed by a later try, live",
        good_s=run.seconds,
    )
