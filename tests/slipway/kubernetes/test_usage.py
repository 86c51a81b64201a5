"""The CPU that pods use, from PodMetrics."""

import json

import pytest

from slipway.kubernetes import usage
from slipway.kubernetes.usage import Watch, seconds_of, usage_of_pods, watched_usage
from slipway.serving.sweep import Usage


def pod(cpu, *, at="2026-11-29T05:00:20Z", window="15s"):
    """A pod's metrics, as metrics-server gives them."""
    container = {"name": "tfs-k8s", "usage": {"cpu": cpu, "memory": "100Mi"}}
    return {"metadata": {"name": "p"}, "timestamp": at, "window": window, "containers": [container]}


AT_S = 1795928400.0  # 2026-11-29T05:00:00Z


def test_cpus_of_all_pods():
    """The sum, over the time that all measurements together cover."""
    found = usage_of_pods([pod("250m"), pod("1500000000n", at="2026-11-29T05:00:22Z", window="10.5s")])
    assert found == Usage(began_s=AT_S + 5, ended_s=AT_S + 22, cpus=1.75)
    assert usage_of_pods([]) is None


@pytest.mark.parametrize(("text", "seconds"), [("15s", 15), ("10.5s", 10.5), ("1m5s", 65), ("800ms", 0.8)])
def test_durations(text, seconds):
    """As Go writes them."""
    assert seconds_of(text) == pytest.approx(seconds)


def test_a_measurement_counts_once():
    """The API answers with the same one until there is a new one."""
    watch, first, second = Watch(), Usage(began_s=0, ended_s=15, cpus=1), Usage(began_s=15, ended_s=30, cpus=2)
    for one in (first, first, None, second, second):
        watch.add(one)
    assert watch.found == [first, second]


ANSWERS = {
    "a measurement": (200, {"kind": "PodMetricsList", "items": [pod("250m")]}, 1, None),
    "no metrics-server": (404, {}, 0, "the cluster has no metrics-server"),
    "no right": (403, {}, 0, "connection kubernetes_default may not list pods of metrics.k8s.io"),
    "not ready": (503, {}, 0, "metrics.k8s.io: HTTP 503"),
}


@pytest.mark.parametrize("case", ANSWERS)
def test_what_is_missing_is_said(release, http_server, connected, monkeypatch, case):
    """The pods are read by their labels while the block runs; no answer is an error."""
    status, body, count, why_not = ANSWERS[case]
    server = http_server((status, json.dumps(body)))
    connected(server)
    monkeypatch.setattr(usage, "POLL_S", 0.01)
    with watched_usage(release.target, {"app": "x", "slipway/model": "m"}) as watch:
        while not server.seen[1:]:
            pass
    assert (len(watch.found), watch.why_not) == (count, why_not)
    path, _, query = server.seen[0].path.partition("?")
    assert path == "/apis/metrics.k8s.io/v1beta1/namespaces/shop/pods"
    assert query == "labelSelector=app%3Dx%2Cslipway%2Fmodel%3Dm"


def test_an_api_server_that_does_not_answer_ends_nothing(release, closed_url, connected, monkeypatch):
    """The sweep goes on without the figure."""
    from types import SimpleNamespace

    connected(SimpleNamespace(url=closed_url))
    with watched_usage(release.target, {"app": "x"}) as watch:
        pass
    assert (watch.found, watch.why_not) == ([], "metrics.k8s.io: ClusterUnreachable")
