"""A preview next to the live release: only the API server reaches it, and it is deleted afterwards, whatever its gate's verdict."""

import json
import re
import threading
import time
import urllib.request
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
from kubernetes.client import DiscoveryV1Api
from kubernetes.config import new_client_from_config
from test_story import Story, plan_of
from trial_project import remove_images

MODEL, LIVE, PREVIEW = "previewed", "tfs-previewed", "tfs-previewed-preview"
OF_PREVIEW = re.compile(rf"/{LIVE}(-monitoring)?-preview")
OWN = "deployment,replicaset,pod,service,endpointslice,hpa,pdb,configmap"
POLL_S = 0.2
OF_SERVICE = "kubernetes.io/service-name"
GONE_S = 600  # a pod drains for 10 s, on a busy machine for longer

pytestmark = [pytest.mark.stand, pytest.mark.alongside]


@pytest.fixture(scope="module")
def story(tmp_path_factory, surroundings, stand, kubectl, engine):
    """A model whose releases are previewed, its first one live; all that it made is removed afterwards."""
    remove_images(engine, MODEL)
    place = Story(
        tmp_path_factory.mktemp(MODEL),
        MODEL,
        surroundings,
        stand=stand,
        kubectl=kubectl,
        engine=engine,
        target__strategy="preview",
    )
    _, [place.first] = place.run()
    yield place
    place.end()


def objects(story, kinds, *words):
    """Objects of the namespace as JSON."""
    return json.loads(story.kubectl("get", kinds, *words, "-o", "json"))["items"]


def preview_objects(story):
    """The preview's objects of any kind, as kind/name."""
    return [name for name in story.kubectl("get", OWN, "-o", "name").split() if OF_PREVIEW.search(name)]


def wait_until_gone(story):
    """Wait until nothing of the preview is left: its pod drains first."""
    end_s = time.monotonic() + GONE_S
    while left := preview_objects(story):
        assert time.monotonic() < end_s, left
        time.sleep(1)


def live_state(story):
    """What differs if the live Deployment is changed, or its pods are replaced or restarted."""
    deployment = json.loads(story.kubectl("get", f"deployment/{LIVE}", "-o", "json"))
    pods = objects(story, "pods", "-l", f"app=tfs-server,slipway/model={MODEL}")
    return {
        "generation": deployment["metadata"]["generation"],
        "labels": deployment["metadata"]["labels"],
        "pods": {pod["metadata"]["uid"]: pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods},
    }


@contextmanager
def watched(story):
    """Sends requests to the live address, and reads the endpoints of its Service, until the block ends."""
    seen = SimpleNamespace(answers=[], endpoints=set(), previews=0)
    over = threading.Event()
    service = json.loads(story.kubectl("get", f"service/{LIVE}", "-o", "json"))
    url = f"http://{service['status']['loadBalancer']['ingress'][0]['ip']}:8501/v1/models/{MODEL}"

    def poll():
        with new_client_from_config(story.stand["kubeconfig"]) as client:
            discovery = DiscoveryV1Api(client)
            while not over.wait(POLL_S):
                slices = discovery.list_namespaced_endpoint_slice(story.stand["namespace"]).items
                of_live, of_preview = (
                    [
                        point
                        for one in slices
                        if one.metadata.labels[OF_SERVICE] == name
                        for point in one.endpoints or ()
                    ]
                    for name in (LIVE, PREVIEW)
                )
                seen.endpoints |= {point.target_ref.name for point in of_live}
                if any(point.conditions.ready for point in of_preview):
                    seen.previews += 1
                    seen.answers.append(status_of(url))

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def status_of(url):
    """The status of an answer, or why there is none."""
    try:
        return urllib.request.urlopen(url, timeout=300).status
    except OSError as error:
        return str(error)


def test_1_a_first_release_is_previewed_too(story):
    """The preview's gate passes before the rollout; the record has both gates, and lists no preview any more."""
    record = story.first
    assert record["outcome"] == "live"
    assert "3 of 3 rounds in a row passed" in record["verdicts"]["preview_gate"]["reason"]
    assert record["verdicts"]["preview_gate"]["at"] < record["verdicts"]["wait_for_rollout"]["at"]
    assert record["preview"] == []
    assert record["tasks"]["remove_preview"] == "success"
    wait_until_gone(story)


def test_2_no_user_reaches_a_preview_while_the_live_release_answers(story):
    """While changed manifests run as a preview, the live pods answer every request; a live endpoint is never a preview's pod."""
    overlay = story.overlay / "deployment.yaml"
    overlay.write_text(
        overlay.read_text().replace("terminationGracePeriodSeconds: 6", "terminationGracePeriodSeconds: 7")
    )
    with watched(story) as seen:
        log, [record] = story.run()
    assert plan_of(log)[0] == "manifests"
    assert record["outcome"] == "live"
    assert record["verdicts"]["preview_gate"]["outcome"] == "pass"
    assert seen.previews > 2, "no preview was seen ready"
    assert seen.answers == [200] * seen.previews
    assert len(seen.endpoints) >= 2, "the live pods of before and after"
    assert not [name for name in seen.endpoints if name.startswith(PREVIEW)]
    wait_until_gone(story)


def test_3_a_preview_that_answers_wrong_changes_nothing_live(story):
    """The preview's gate fails at the first answer that breaks a promise."""
    before, overlay = live_state(story), story.overlay / "deployment.yaml"
    good = overlay.read_text()
    overlay.write_text(good.replace("terminationGracePeriodSeconds: 7", "terminationGracePeriodSeconds: 8"))
    with promised(story, "4"):
        _, [record] = story.run(green=False)
    overlay.write_text(good)
    reason = record["verdicts"]["preview_gate"]["reason"]
    assert "golden case 'eight': expected '4'" in reason
    assert "wrong label" in reason
    assert record["tasks"]["apply"] == "upstream_failed"
    assert live_state(story) == before
    wait_until_gone(story)


def test_4_a_preview_that_does_not_answer_changes_nothing_live(story):
    """If the Service points at a wrong port, the preview's gate fails; nothing was applied, so nothing is rolled back."""
    serving, before = story.live(), live_state(story)
    with story.broken_target_port():
        _, [record] = story.run(green=False)
    reason = record["verdicts"]["preview_gate"]["reason"]
    assert f"services/{PREVIEW}:8501/proxy/v1/models/{MODEL}/versions/1" in reason
    assert "the API server: HTTP 503" in reason
    assert f"Next: kubectl -n {story.stand['namespace']} get --raw /api/v1/" in reason
    assert {task: record["tasks"][task] for task in ("preview", "preview_gate", "apply", "rollback", "remove_preview")} == {
        "preview": "success", "preview_gate": "failed", "apply": "upstream_failed", "rollback": "skipped", "remove_preview": "success",
    }  # fmt: skip
    assert (record["outcome"], record["objects"], record["preview"]) == ("failed", [], [])
    assert (live_state(story), story.live()) == (before, serving)
    wait_until_gone(story)


def test_5_a_run_with_nothing_to_do_removes_a_killed_runs_preview(story):
    """The record of a run that is killed while its preview runs lists the preview; the next run deletes it, and does nothing else."""
    before = live_state(story)
    with story.broken_target_port():
        killed = story.kill_when(lambda: f"deployment.apps/{PREVIEW}" in preview_objects(story))
    assert sorted(ref["kind"] for ref in killed["preview"]) == ["ConfigMap", "Deployment", "Service"]
    assert all(OF_PREVIEW.search(f"/{ref['name']}") for ref in killed["preview"])
    assert f"deployment.apps/{PREVIEW}" in preview_objects(story)
    log, records = story.run(break_lease=True)  # nothing reports that the killed run has ended
    assert (plan_of(log)[0], records) == ("nothing", [])
    assert [record["preview"] for record in story.records().values() if record["run_id"] == killed["run_id"]] == [[]]
    assert live_state(story) == before
    wait_until_gone(story)


@contextmanager
def promised(story, label):
    """For the block, the first stored golden case promises another label."""
    [golden] = story.store.glob(f"exports/{MODEL}/1/golden-*.json")
    good = golden.read_text()
    cases = json.loads(good)
    golden.write_text(json.dumps({**cases, "cases": [{**cases["cases"][0], "label": label}, *cases["cases"][1:]]}))
    try:
        yield
    finally:
        golden.write_text(good)
