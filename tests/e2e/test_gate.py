"""The gate against real servers behind a real Service, old pods and new.

The servers are pods of the image that a refresh has pushed; the name of a folder decides the version that each serves.
"""

import asyncio
import itertools
import json
import re
import subprocess
import threading
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from dag_run import until
from trial_project import PROJECT

from slipway.dag.triggers.gate import PredictionTrigger
from slipway.facts import Baseline, from_dict, to_dict
from slipway.kubernetes.address import judge_address, service_grpc_address
from slipway.records.store import Store, read_json
from slipway.release import Gate, Release
from slipway.serving.evaluation import evaluate_live
from slipway.serving.golden import cases_from
from slipway.serving.labelled_set import pin_labelled_set, read_images
from slipway.verdict import Verdict

OLD, NEW = 41, 42  # versions
LABEL = "slipway.test/gate"
LIMIT_S = 1800  # for gates whose result depends on the answers, not on time
IMAGES = 60
DRAW = """
import sys
from pathlib import Path
from train_digits import load_digits
_, held_out = load_digits()
for number, (image, label) in enumerate(zip(held_out.images[:int(sys.argv[2])], held_out.labels)):
    place = Path(sys.argv[1]) / str(label) / f"{number:03}.png"
    place.parent.mkdir(parents=True, exist_ok=True)
    image.save(place)
"""

pytestmark = [pytest.mark.stand, pytest.mark.alongside]


def server(name, image, version, namespace, model="trial"):
    """A Deployment of one server that serves its model as this version, whatever the version in its image."""
    moved = f"mkdir -p /tmp/models && cp -r /models/{model}/* /tmp/models/{version} && exec /usr/bin/tf_serving_entrypoint.sh"
    pod = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "securityContext": {"runAsNonRoot": True, "runAsUser": 1000, "seccompProfile": {"type": "RuntimeDefault"}},
        "containers": [{
            "name": "tfs-k8s",
            "image": image,
            "command": ["sh", "-c", f"{moved} --model_base_path=/tmp/models"],
            "readinessProbe": {
                "httpGet": {"path": f"/v1/models/{model}/versions/{version}", "port": 8501},
                "periodSeconds": 1,
            },
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }],
    }  # fmt: skip
    labels = {"app": "gate", "version": str(version)}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": {LABEL: "yes"}},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }


def service(namespace):
    """A Service in front of old and new servers."""
    ports = [
        {"name": "tf-serving-grpc", "port": 8500, "targetPort": 8500},
        {"name": "tf-serving-restapi", "port": 8501, "targetPort": 8501},
    ]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "gate", "namespace": namespace, "labels": {LABEL: "yes"}},
        "spec": {"type": "LoadBalancer", "selector": {"app": "gate"}, "ports": ports},
    }


class Served:
    """The Service, its address, and the trigger of a refresh's gate."""

    def __init__(self, facts, kubectl, folder):
        self.release = replace(from_dict(Release, facts["resolve"]), gate_passes=3, store=f"file://{folder}/store")
        self.export, self.kubectl, self.store = facts["export"], kubectl, Store(self.release.store)
        self.cases = cases_from(read_json(self.export["golden_uri"]))
        found = until(self.found, "the Service has an address")
        self.url, self.grpc = judge_address(found, name="gate", namespace="")[1], service_grpc_address(found)

    def found(self):
        """The Service as JSON, once it has an address."""
        service = json.loads(self.kubectl("get", "service/gate", "-o", "json"))
        return service if judge_address(service, name="gate", namespace="")[1] else None

    def endpoints(self):
        """The number of ready pods in the Service's EndpointSlices."""
        slices = json.loads(
            self.kubectl("get", "endpointslices", "-l", "kubernetes.io/service-name=gate", "-o", "json")
        )
        return sum(
            len(one["addresses"])
            for each in slices["items"]
            for one in each["endpoints"] or ()
            if one["conditions"]["ready"]
        )

    def gate(self, version, *, url=None, cases=None, limit_s=LIMIT_S, baseline=None, **rules):
        """The gate's trigger; with a `url` it sends no gRPC requests."""
        golden = self.export["golden_uri"]
        if cases:
            golden = self.store.put_json({"cases": [to_dict(case) for case in cases]}, "golden.json")
        return PredictionTrigger(
            release=to_dict(replace(self.release, gate=Gate(**rules))), url=url or self.url, version=version, golden_uri=golden,
            grpc=None if url else self.grpc, descriptors_uri=self.export["descriptors_uri"],
            baseline=to_dict(baseline) if baseline else None, deadline=time.time() + limit_s, poll_s=0.2,
        )  # fmt: skip

    def end(self, version, **how):
        """Run the gate to its end; its event."""
        trigger = self.gate(version, **how)

        async def first():
            return (await anext(trigger.run())).payload

        return SimpleNamespace(**asyncio.run(first()))


@pytest.fixture(scope="module")
def served(trial, stand, kubectl, surroundings, tmp_path_factory):
    """Old and new servers behind one Service, both ready; removed afterwards."""
    image = trial.facts["push"]["reference"]
    namespace = stand["namespace"]
    objects = [service(namespace), server("gate-old", image, OLD, namespace), server("gate-new", image, NEW, namespace)]
    folder = tmp_path_factory.mktemp("gate")
    (folder / "objects.json").write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    try:
        kubectl("apply", "-f", str(folder / "objects.json"))
        for name in ("gate-old", "gate-new"):
            kubectl("rollout", "status", f"deployment/{name}", "--timeout=1800s")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("AIRFLOW_CONN_KUBERNETES_DEFAULT", surroundings["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
            yield Served(trial.facts, kubectl, folder)
    finally:
        kubectl("delete", "deployment,service", "-l", f"{LABEL}=yes", "--wait=false")


def test_answers_of_an_old_pod_are_never_counted(served):
    """While an old pod is behind the Service too, its correct answers do not pass the gate; once it is gone, the gate passes."""
    until(lambda: served.endpoints() == 2, "both pods are behind the Service")
    mixed = served.end(NEW, limit_s=6)

    async def drained():
        polling = asyncio.create_task(anext(served.gate(NEW).run()))
        await asyncio.sleep(2)
        seen = (polling.done(), served.endpoints())
        await asyncio.to_thread(served.kubectl, "scale", "deployment/gate-old", "--replicas=0")
        return seen, (await polling).payload

    seen, event = asyncio.run(drained())
    assert seen == (False, 2)
    assert event["outcome"] == "pass", event
    assert "3 of 3 over gRPC, by the same version" in event["reason"]
    assert "garbage was refused with 400" in event["reason"]
    served.kubectl("wait", "pod", "-l", f"app=gate,version={OLD}", "--for=delete", "--timeout=1800s")
    # Last: the tests after this one need the old pod to be gone.
    assert (mixed.outcome, mixed.reason.split(":")[0]) == ("fail", "time is up")
    assert re.search(r"(404|NOT_FOUND): .*not found", mixed.reason), mixed.reason


def test_a_version_that_no_pod_serves_does_not_pass(served):
    """Only the new server is left: the gate waits for a version that it does not have until time is up."""
    end = served.end(OLD, limit_s=2)
    assert end.outcome == "fail"
    assert re.match(r"time is up: golden case '\w+': HTTP 404: .*not found", end.reason), end.reason


def promised(case, **changes):
    """The golden case with another promise, and without 🤗's own answer, which would contradict it."""
    return replace(case, reference=None, **changes)


def test_a_wrong_label_and_too_little_confidence_fail_at_once(served):
    """The real server's answer must meet each promise; a case with several labels passes with any of them."""
    [three] = [case for case in served.cases if case.name == "three"]
    wrong = served.end(NEW, cases=[promised(three, label="8")])
    assert (wrong.outcome, wrong.reason.rsplit(": ", 1)[1]) == ("fail", "wrong label")
    unsure = served.end(NEW, cases=[promised(three, min_confidence=1.0)])
    assert (unsure.outcome, unsure.reason.rsplit(": ", 1)[1]) == ("fail", "confidence too low")
    assert served.end(NEW, cases=[promised(three, label=("8", "3"))]).outcome == "pass"


@contextmanager
def between(url, *, every=0, delay_s=0.0):
    """The URL of a proxy in front of a server: it answers 503 to one request of `every`, or delays each."""
    numbers = itertools.count(1)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            number = next(numbers)
            time.sleep(delay_s)
            if every and number % every == 0:
                status, content = 503, b"flapping"
            else:
                try:
                    with urllib.request.urlopen(urllib.request.Request(url + self.path, body), timeout=300) as answer:
                        status, content = answer.status, answer.read()
                except urllib.error.HTTPError as refused:
                    status, content = refused.code, refused.read()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Logs nothing."""

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}"
    finally:
        proxy.shutdown()
        proxy.server_close()


def test_too_many_missing_answers_fail(served):
    """If one request of seven gets no answer, three rounds in a row never pass; the gate fails once its error budget is used up."""
    with between(served.url, every=7) as url:
        end = served.end(NEW, url=url, errors=2)
    assert end.outcome == "fail"
    assert end.reason.startswith("3 rounds with missing answers after the first pass, 2 allowed: ")


def test_correct_answers_that_come_late_are_inconclusive(served):
    """Correct answers that take 300 ms, with a limit of 200 ms, make the gate inconclusive; the reason has the figures."""
    with between(served.url, delay_s=0.3) as url:
        end = served.end(NEW, url=url, latency_ms=200)
    assert end.outcome == "inconclusive"
    assert re.search(r"95 of 100 answers within \d{3,4} ms, limit 200 ms, 3 times in a row", end.reason), end.reason
    assert end.found["latency_ms"] >= 300


@pytest.fixture(scope="module")
def labelled_images(served, stand, tmp_path_factory):
    """A labelled set of digits that digits-vit was not trained on, one folder for each label."""
    folder = tmp_path_factory.mktemp("quality")
    done = subprocess.run(
        [stand["exporter_python"], "-c", DRAW, folder / "digits", str(IMAGES)],
        capture_output=True, text=True, check=False, timeout=LIMIT_S, cwd=PROJECT / "include" / "model",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def mislabelled(served, labelled_images):
    """Makes the bounds for the same images with a third of the labels wrong."""

    def make(**bounds):
        good = pin_labelled_set(labelled_images / "m.yaml", "digits", served.store, "m", **bounds)
        rows = [f"digits/{one.name},{one.label if place % 3 else '0'}" for place, one in enumerate(read_images(good))]
        (labelled_images / "labels.csv").write_text("\n".join(["image,label", *rows]))
        return pin_labelled_set(labelled_images / "m.yaml", "labels.csv", served.store, "m", **bounds)

    return make


def test_a_labelled_set_must_be_classified_correctly(served, labelled_images, mislabelled):
    """Digits that the model never saw pass the gate; with a third of the labels wrong, they fail it."""
    good = pin_labelled_set(labelled_images / "m.yaml", "digits", served.store, "m", min_top1=0.9)
    end = served.end(NEW, quality=good)
    assert end.outcome == "pass", end.reason
    assert end.found["quality"]["images"] == IMAGES
    print(end.reason.rsplit("; ", 1)[1])
    end = served.end(NEW, quality=mislabelled(min_top1=0.9))
    assert end.outcome == "fail", end.reason
    assert "at least 0.9 required" in end.reason


def test_a_release_is_compared_with_the_live_one(served, labelled_images, mislabelled):
    """The live release classifies the same images at its own version; a release that gets a third more of them wrong fails."""
    floor = pin_labelled_set(labelled_images / "m.yaml", "digits", served.store, "m", max_drop=0.02)
    release = replace(served.release, gate=Gate(quality=floor))
    live = evaluate_live(release, {"version": NEW, "verdicts": {}, "run_id": "r"}, Verdict.passed("well"), served.url)
    assert live.source == f"measured at {served.url} before the run"
    assert served.end(NEW, quality=floor, baseline=live).outcome == "pass"
    all_right = Baseline(measured=replace(live.measured, wrong=()), source="its record")
    end = served.end(NEW, quality=mislabelled(max_drop=0.02), baseline=all_right)
    assert end.outcome == "fail", end.reason
    assert f"correct, the live release {IMAGES} (its record), a drop of at most 0.02 allowed" in end.reason
