"""Hostile answers of an API server: each gives a verdict or an error in one line.

A poll that meets something else than an object waits and says so (`PollingTrigger.poll_or_wait`).
"""

import json
from copy import deepcopy
from pathlib import Path

import yaml
from hostile import accept_or_refuse, assert_plain, bounded, json_values, mutated, scalars, texts
from hypothesis import given
from hypothesis import strategies as st

from slipway.dag.triggers.polling import PollingTrigger
from slipway.kubernetes.address import judge_address, service_grpc_address
from slipway.kubernetes.api import api_refusal, list_items
from slipway.kubernetes.diagnosis import explain_pods
from slipway.kubernetes.proxy import read_proxy_answer
from slipway.kubernetes.rollout import find_overdue, judge_drain, judge_pods, judge_rollout
from slipway.kubernetes.stuck import Evidence, Observations, find_stuck, judge_stuck, needs_pod_events
from slipway.target import Target
from slipway.verdict import Verdict

TARGET = Target(conn_id="kubernetes_default", namespace="shop")
SEEN = list(yaml.safe_load(Path(__file__).with_name("stuck.yaml").read_text()).values())
DEPLOYMENT = {
    "metadata": {"name": "tfs-server", "uid": "u-1", "generation": 4},
    "spec": {"replicas": 2, "paused": False},
    "status": {"observedGeneration": 4, "replicas": 2, "updatedReplicas": 2, "availableReplicas": 2,
               "conditions": [{"type": "Progressing", "status": "False", "reason": "ProgressDeadlineExceeded", "message": "late"}]},
}  # fmt: skip
SERVICE = {
    "metadata": {"name": "tfs-server"},
    "spec": {"ports": [{"name": "tf-serving-grpc", "port": 8510}]},
    "status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}},
}
REFUSAL = {
    "kind": "Status", "message": "denied", "reason": "Conflict", "code": 409,
    "details": {"causes": [{"reason": "FieldManagerConflict", "message": "conflict with x", "field": ".spec.replicas"}]},
}  # fmt: skip


class Poll(PollingTrigger):
    """A poll that judges what it is given."""

    def __init__(self, judge):
        super().__init__(deadline=0, poll_s=1)
        self.judge = judge

    def serialize(self):
        """Unused."""
        return "", {}

    async def poll(self):
        """The verdict."""
        return self.judge()


async def poll(judge):
    """The verdict of a poll, in one line and in time."""
    with bounded():
        verdict = await Poll(judge).poll_or_wait()
    assert_plain(str(verdict))
    return verdict


def hostile_words(value, words):
    """The object with words from outside in all its texts."""
    if isinstance(value, dict):
        return {key: hostile_words(item, words) for key, item in value.items()}
    if isinstance(value, list):
        return [hostile_words(item, words) for item in value]
    return words if isinstance(value, str) else value


@given(mutated(DEPLOYMENT) | texts.map(lambda words: hostile_words(deepcopy(DEPLOYMENT), words)))
async def test_any_deployment(deployment):
    """A Deployment with any fields."""
    await poll(lambda: judge_rollout(deployment, uid="u-1", generation=4, namespace="shop"))
    await poll(lambda: Verdict.wait(find_overdue(deployment) or "not overdue"))


@given(mutated(SERVICE))
async def test_any_service(service):
    """A Service with any fields."""
    await poll(lambda: judge_address(service, name="tfs-server", namespace="shop")[0])
    await poll(lambda: Verdict.wait(service_grpc_address(service) or "none"))


@given(st.data())
async def test_any_pod(data):
    """Pods, ReplicaSets and events with any fields, in a poll and in the diagnosis of a rollout that failed."""
    seen = data.draw(st.sampled_from(SEEN).flatmap(lambda one: mutated(one, scalars | json_values)))

    def judge():
        evidence = Evidence(
            replica_set=seen.get("replica_set"),
            pods=(seen["pod"],) if "pod" in seen else (),
            events=tuple(seen.get("events", ())),
        )
        needs_pod_events(evidence.pods)
        find_stuck(evidence)
        return judge_stuck(Observations(), evidence, Verdict.wait("waits"), now_s=1.0, grace_s=0)[1]

    await poll(judge)
    pods = lambda: [seen["pod"]] if "pod" in seen else []  # noqa: E731 - read within the poll
    await poll(lambda: judge_pods(pods(), release_id="r", namespace="shop"))
    await poll(lambda: judge_drain(pods(), release_id="x", version="7", since_s={}, now_s=1.0)[1])
    await poll(lambda: Verdict.wait("; ".join(explain_pods(pods(), seen.get("events", []), deployment="d")) or "none"))


@given(texts)
async def test_any_words_in_valid_objects(words):
    """Objects of the right form, with hostile words in every text: they are judged, and no poll fails."""
    for seen in SEEN:
        pod = hostile_words(deepcopy(seen.get("pod", {"metadata": {"name": "a", "uid": "u"}, "status": {}})), words)
        for line in explain_pods([pod], hostile_words(deepcopy(seen.get("events", [])), words), deployment=words):
            assert_plain(line)


@given(st.sampled_from([None, 0, 200, 401, 403, 404, 409, 409, 422, 429, 500]), st.one_of(mutated(REFUSAL).map(json.dumps), json_values.map(json.dumps), texts, st.binary(max_size=30), st.none()))  # fmt: skip
def test_any_refusal(status, body):
    """A refusal with any body is an error in one line that says what next."""
    with bounded():
        error = str(api_refusal(TARGET, "deployment/tfs-server", status, body))
    assert_plain(error)
    assert ". Next: " in error


@given(st.one_of(json_values.map(json.dumps), texts, st.binary(max_size=30)))
def test_any_list(body):
    """A list that is none, as from a proxy's login page, is refused in one line."""
    data = body.encode(errors="surrogatepass") if isinstance(body, str) else body
    accept_or_refuse(list_items, lambda **_: type("Response", (), {"data": data}))


@given(st.integers(100, 599), texts | json_values.map(json.dumps))
def test_any_proxied_answer(status, body):
    """An answer through the API server's proxy, with any body."""
    with bounded():
        read_proxy_answer(status, body)
