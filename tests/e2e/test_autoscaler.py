"""The HorizontalPodAutoscaler under load, with metrics-server's own measurements: nobody else writes the number of pods."""

import csv
import json
import os
import re
import subprocess
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml
from dag_run import until
from load_client import Client
from load_requests import load_request
from refresh_harness import RefreshHarness
from timeline import Timeline

from benchmarks.refresh_times import machine
from local.builds.environments import build_environment
from local.settings import settings_here
from slipway.load_plan import LoadPlan

PROJECT = Path(__file__).parents[2]
MODEL = "autoscaled"
TARGET_PERCENT = 40  # of 100m a pod: 40 requests a second take about 200m, one takes 10m
CALM_M = 30
# A connection ends before its pod's drain of 10 s does, and pods that are added get some.
PLAN = LoadPlan(rates_per_s=(40, 1), closed_users=(), step_s=120, settle_s=10, keep_s=5)
DRAIN = {"preStop": {"exec": {"command": ["sleep", "10"]}}}
SCALED_S = 300  # metrics take two rounds of 15 s, the autoscaler looks every 15 s, the pods start in seconds
SHORT = ("new connections", "kept 8 s")

pytestmark = [pytest.mark.stand, pytest.mark.alongside, pytest.mark.slow, pytest.mark.usefixtures("metrics_server")]


@pytest.fixture(scope="module")
def scaled(tmp_path_factory, surroundings, stand, kubectl, engine):
    """A harness with content a live, the base's drain, and an autoscaler that does not wait five minutes to scale down."""
    root = tmp_path_factory.mktemp(MODEL)
    harness = RefreshHarness.make(root, surroundings, stand, kubectl, engine, model=MODEL)
    overlay = harness.project / "include" / "manifests" / "overlays" / "local" / "kustomization.yaml"
    patch = [
        {"op": "add", "path": "/spec/behavior", "value": {"scaleDown": {"stabilizationWindowSeconds": 15}}},
        {"op": "replace", "path": "/spec/metrics/0/resource/target/averageUtilization", "value": TARGET_PERCENT},
    ]
    kustomization = yaml.safe_load(overlay.read_text())
    hpa = {"target": {"kind": "HorizontalPodAutoscaler"}, "patch": yaml.safe_dump(patch)}
    overlay.write_text(yaml.safe_dump({**kustomization, "patches": [*kustomization["patches"], hpa]}))

    def drain(deployment):
        spec = deployment["spec"]["template"]["spec"]
        spec["terminationGracePeriodSeconds"] = 20
        spec["containers"][0]["lifecycle"] = DRAIN

    with harness.overlay(drain):
        harness.released = harness.run().record()
        yield harness
    harness.end()


def watched(harness):
    """The timeline of the model's Deployment."""
    return Timeline(harness.stand["kubeconfig"], harness.stand["namespace"], f"tfs-{MODEL}")


def wait_for_pods(timeline, count):
    """Wait until so many pods are wanted and ready; one pod must be calm too, as it is not while it starts."""

    def there():
        moment = timeline.read()
        calm = count > 1 or (moment["cpu_m"] is not None and moment["cpu_m"] < CALM_M)
        return calm and moment["wanted"] == moment["ready"] == count

    until(there, f"{count} pods", limit_s=SCALED_S)


def load_python():
    """The interpreter of the load test's environment."""
    return build_environment(settings_here(), "load") / "bin" / "python"


def load(request, folder):
    """Run the load test to its end; the folder that it leaves."""
    (folder / "request.json").write_text(json.dumps(request))
    program, out = PROJECT / "include" / "load" / "load.py", folder / "load"
    words = [load_python(), program, "--request", folder / "request.json", "--out", out]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


def rates(out, began):
    """The rate of answers over time, as Locust counts it once a second."""
    with (out / "locust_stats_history.csv").open(newline="") as file:
        return [
            {"at_s": round(float(row["Timestamp"]) - began, 1), "per_s": float(row["Requests/s"])}
            for row in csv.DictReader(file)
            if row["Name"] == "Aggregated"
        ]


def keep(seen, folder):
    """Write the timeline, and its picture: for docs/load.md too if SLIPWAY_TIMELINE names the folder."""
    for place in {folder, Path(os.environ.get("SLIPWAY_TIMELINE") or folder)}:
        (place / "autoscaler.json").write_text(json.dumps(seen, indent=1) + "\n")
        draw = [load_python(), Path(__file__).with_name("draw_timeline.py"), place / "autoscaler.json"]
        subprocess.run([*draw, place / "autoscaler.png"], check=True, timeout=300)


def test_1_one_pod_becomes_three_and_one_again(scaled, tmp_path):
    """Under load the autoscaler adds two pods, after it it removes them; no request fails, and only it writes the number."""
    host = urlsplit(scaled.address()).hostname
    request = load_request(scaled.released, PLAN, host)
    wait_for_pods(watched(scaled), 1)
    with watched(scaled) as timeline:
        out = load(request, tmp_path)
        wait_for_pods(timeline, 1)
    figures = json.loads((out / "load.json").read_text())
    counts = {"requests": sum(step["requests"] for step in figures["steps"]), "errors": figures["errors"]}
    server = "the stand-in" if scaled.stand["stand_ins"] else "TensorFlow Serving"
    where = f"{server} on {machine().rpartition(', ')[0]}"
    seen = timeline.as_json(where=where, **counts, rates=rates(out, timeline.began), steps=figures["steps"])
    keep(seen, tmp_path)
    assert figures["errors"] == 0
    assert counts["requests"] > 1000
    assert max(moment["ready"] for moment in seen["moments"]) == 3
    assert seen["moments"][-1]["ready"] == 1
    scaled_to = [re.match(r"New size: (\d)", event["message"]) for event in seen["events"]]
    wanted = [moment["wanted"] for moment in seen["moments"]]
    changes = {after for before, after in pairwise(wanted) if after != before}
    assert {int(size[1]) for size in scaled_to if size} == changes >= {1, 3}
    assert timeline.owners_of_replicas() == set()


def test_2_a_refresh_and_a_rollback_in_the_middle_lose_nothing(scaled):
    """With three pods under load a release replaces another and is rolled back: three pods all the time, no failed request."""
    first = scaled.serves()
    client = Client(scaled.load_target(), rate=25, limit_s=1200, ways=SHORT)
    try:
        wait_for_pods(watched(scaled), 3)
        with watched(scaled) as timeline:
            scaled.content("b")
            second = scaled.assert_live(scaled.run(), version=2)
            scaled.run(scaled.dag_of("rollback"), release=first["release"])
    finally:
        seen = client.end()
    print({way: {**found, "failed": found["failed"][:3]} for way, found in seen.items()})
    assert second["release"] != first["release"]
    assert scaled.serves() == first
    for way in SHORT:
        assert seen[way]["requests"] > 500
        assert (seen[way]["failed"], seen[way]["wrong"]) == ([], [])
    assert {moment["wanted"] for moment in timeline.moments} == {3}
    assert min(moment["ready"] for moment in timeline.moments) >= 3
    assert timeline.owners_of_replicas() == set()
