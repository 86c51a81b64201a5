import json
import time
from dataclasses import replace

import pytest
from metric_pods import MetricPod
from trigger_events import events_of

from slipway.dag.triggers.bake import BakeTrigger
from slipway.facts import to_dict
from slipway.release import Bake, Gate, PrometheusQueries
from slipway.steps.bake import closing_s

FOR_S = 100  # the clock is the test's


@pytest.fixture
def clock(monkeypatch):
    """The time, which goes on by ten seconds with each look."""
    times = {"now": 1_000_000.0}
    monkeypatch.setattr(time, "time", lambda: times["now"])
    return times


@pytest.fixture
def baking(release, store, case, clock):
    """Makes the bake's trigger in front of a server, with one golden case in the store."""
    uri = store.put_json({"cases": [to_dict(case)]}, "golden.json")

    def make(url, *, before=None, gate=None, **rules):
        bake = Bake(for_s=FOR_S, every_s=10, **rules)
        return BakeTrigger(
            release=to_dict(replace(release, gate=replace(gate or Gate(), bake=bake))),
            deadline=clock["now"] + FOR_S + closing_s(bake),
            poll_s=0.001,
            url=url,
            version=7,
            golden_uri=uri,
            release_id="abcdefabcdef",
            before=before,
        )

    return make


@pytest.fixture
def cluster_of(metric_cluster, clock):
    """An API server with one pod; `each_look` is called with the pod and the number of the look, before it is answered."""

    def start(each_look):
        pod = MetricPod("a")
        pod.count(*[4] * 30, INVALID_ARGUMENT=9, INTERNAL=5)  # by the gate, and before it
        cluster = metric_cluster(pod)

        def at_look(number):
            clock["now"] += 10
            each_look(pod, number)

        cluster.at_look = at_look
        return cluster

    return start


async def test_passes_when_the_time_is_over(baking, cluster_of):
    """Golden requests and the pods' own figures were within the limits at every look; what was before it does not count."""
    cluster = cluster_of(lambda pod, number: pod.count(*[3] * 10, NOT_FOUND=1) if number > 1 else None)
    (event,) = await events_of(baking(cluster.url, p95_ms=10))
    assert (event["outcome"], event["late"], cluster.looks) == ("pass", False, 11)
    assert event["reason"].startswith(
        "11 of 11 rounds of golden requests had all their answers; 100 predictions by 1 pod"
    )
    assert event["found"]["servers"]["answered"] == 100
    assert (event["found"]["servers"]["refused"], event["found"]["servers"]["errors"]) == (10, 0)
    assert event["found"]["latency_ms"] is not None


async def test_a_trigger_that_starts_again_adds_no_time(baking, cluster_of):
    """What was counted until then is lost; the bake ends when it would have ended."""
    cluster = cluster_of(lambda pod, _number: pod.count(3))
    first = baking(cluster.url)
    polls = [await first.poll_or_wait() for _ in range(6)]
    assert {verdict.outcome for verdict in polls} == {"wait"}
    _, kept = first.serialize()
    (event,) = await events_of(BakeTrigger(**json.loads(json.dumps(kept))))
    assert (event["outcome"], cluster.looks, event["found"]["rounds"]) == ("pass", 11, 5)


SLOW = {"slow": ({"p95_ms": 10}, [40] * 50, {}), "failing": ({}, [3] * 25, {"INTERNAL": 25})}


@pytest.mark.parametrize(("rules", "times_ms", "statuses"), SLOW.values(), ids=SLOW)
async def test_fails_early_if_the_servers_exceed_a_limit(baking, cluster_of, rules, times_ms, statuses):
    """Users should not wait for the end of the bake. The release is at fault."""
    cluster = cluster_of(lambda pod, number: pod.count(*times_ms, **statuses) if number == 3 else None)
    (event,) = await events_of(baking(cluster.url, **rules))
    assert (event["outcome"], event["late"], "unanswered" in event, cluster.looks) == ("fail", False, False, 3)


async def test_fails_at_once_if_an_answer_is_wrong(baking, cluster_of):
    """As at the gate."""
    cluster = cluster_of(lambda _pod, _number: None)
    cluster.predicted = (200, json.dumps({"predictions": [{"label": "8", "confidence": 0.95}]}))
    (event,) = await events_of(baking(cluster.url))
    assert (event["outcome"], "unanswered" in event, cluster.looks) == ("fail", False, 1)
    assert "got '8' at 0.9500: wrong label" in event["reason"]


async def test_fails_without_blame_if_nothing_answers(baking, cluster_of):
    """Neither users nor Slipway get an answer any more: three rounds in a row."""
    cluster = cluster_of(lambda _pod, _number: None)
    cluster.predicted = (503, "overloaded")
    (event,) = await events_of(baking(cluster.url))
    assert (event["outcome"], event["unanswered"], cluster.looks) == ("fail", True, 3)
    assert event["reason"].startswith(
        "3 rounds in a row had missing answers: golden case 'three': HTTP 503: overloaded"
    )


async def test_fails_without_blame_if_the_metrics_stay_unread(baking, cluster_of, clock):
    """A release that nobody could watch does not count as good; the last reason is in the line."""
    cluster = cluster_of(lambda _pod, _number: None)
    cluster.denied = (404, "no such page")
    (event,) = await events_of(baking(cluster.url))
    assert (event["outcome"], event["late"]) == ("fail", True)
    assert event["reason"].startswith("time is up: ")
    assert "the metrics could not be read: pod/a: /monitoring/prometheus/metrics: 404: no such page" in event["reason"]
    assert event["found"]["servers"] is None


async def test_an_api_server_that_is_away_for_a_moment_is_no_failure(baking, cluster_of):
    """The next look counts what was missed."""
    away = (503, json.dumps({"kind": "Status", "apiVersion": "v1", "message": "starting"}))
    cluster = cluster_of(
        lambda pod, number: (pod.count(3), setattr(cluster, "denied", away if number in {4, 11} else None))
    )
    (event,) = await events_of(baking(cluster.url))
    assert (event["outcome"], cluster.looks, event["found"]["servers"]["answered"]) == ("pass", 12, 11)


async def test_compared_with_the_release_before(baking, cluster_of):
    """What `apply` measured of it comes with the trigger."""
    cluster = cluster_of(lambda pod, _number: pod.count(*[30] * 10))
    before = {"release_id": "0" * 12, "answers": 100, "mean_ms": 10.0}
    (event,) = await events_of(baking(cluster.url, before=before, max_slowdown=0.5))
    assert (event["outcome"], "unanswered" in event) == ("fail", False)
    assert event["reason"] == "mean 30 ms, 3.00 times that of release 000000000000, at most 1.5 times allowed"
    assert event["found"]["before"] == {"release": "000000000000", "answered": 100, "errors": None, "mean_ms": 10.0}


def numbers(*values):
    """Answers of a Prometheus."""
    vectors = [{"resultType": "vector", "result": [{"metric": {}, "value": [0, str(value)]}]} for value in values]
    return [(200, json.dumps({"status": "success", "data": vector})) for vector in vectors]


async def test_a_prometheus_is_asked_in_place_of_the_pods(baking, cluster_of, clock, http_server, monkeypatch):
    """Names, release and the time since the bake began are filled in; the pods are not listed."""
    cluster = cluster_of(lambda _pod, _number: None)
    prometheus = http_server(*numbers(0, 20, 0, 50))
    monkeypatch.setenv("AIRFLOW_CONN_PROM", json.dumps({"conn_type": "http", "host": prometheus.url}))
    queries = PrometheusQueries(conn_id="prom", errors="e_$namespace", p95_ms="l_${release}_$window")
    trigger = baking(cluster.url, p95_ms=30, prometheus=queries)
    assert (await trigger.poll_or_wait()).outcome == "wait"
    clock["now"] += FOR_S
    assert (await trigger.poll_or_wait()).reason == "95th percentile in ms 50, limit 30, according to the Prometheus"
    assert [seen.body for seen in prometheus.seen] == [
        "query=e_shop", "query=l_abcdefabcdef_60s", "query=e_shop", "query=l_abcdefabcdef_100s",
    ]  # fmt: skip
    assert cluster.looks == 0
    assert trigger.unanswered is False
    assert trigger.found()["prometheus"] == {"errors": 0.0, "p95_ms": 50.0}


async def test_a_connection_that_is_gone_is_named(baking, cluster_of):
    """Somebody has deleted it since the run began."""
    cluster = cluster_of(lambda _pod, _number: None)
    verdict = await baking(cluster.url, prometheus=PrometheusQueries(conn_id="gone", errors="e")).poll_or_wait()
    assert "the metrics could not be read: connection gone: no such connection. Next: create it" in verdict.reason


async def test_an_endless_answer_does_not_outlast_the_deadline(baking, mean_server, monkeypatch, clock):
    """A look with slow answers ends soon after the deadline, although each answer has a limit of a minute."""
    monkeypatch.setattr("slipway.dag.triggers.golden.OVERTIME_S", 0.1)
    trigger = baking(mean_server.url)
    clock["now"] = trigger.deadline
    began = time.monotonic()
    (event,) = await events_of(trigger)
    assert (event["outcome"], event["late"]) == ("fail", True)
    assert time.monotonic() - began < 30
