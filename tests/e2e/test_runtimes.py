"""The second runtime on the stand: a model that goes live on it, and one that changes its runtime forth and back under load.

A change of the runtime is a release like any other, and a rollback crosses back: no request is lost, no answer is wrong.
"""

import json
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from load_client import Client
from refresh_harness import RefreshHarness
from test_refresh import GOLDEN, GRPC_CLIENT, from_status

MODEL, SET = "runtimes", "labelled"
BAD_FLAG = {"args": ["--rest_api_port=none"]}
DRAIN = {"preStop": {"exec": {"command": ["sleep", "10"]}}}
SHORT = ("new connections", "kept 8 s")

pytestmark = [pytest.mark.stand, pytest.mark.slow, pytest.mark.usefixtures("onnx_image")]


@pytest.fixture(scope="module")
def onnx_image(stand):
    """The reference of the server's image."""
    assert stand["onnx_serving_image"], "the stand has no server of ONNX Runtime. Next: python3 -m local up --onnx"
    return stand["onnx_serving_image"]


@pytest.fixture(scope="module")
def live(stand, refresh, airflow_api):
    """The record of a run of digits-onnx through the scheduler and the triggerer."""
    done = refresh("digits-onnx", "--force")  # it may be live on this stand already
    assert done.returncode == 0, done.stdout + done.stderr
    [run] = airflow_api("/dags/refresh_digits_onnx/dagRuns?order_by=-run_after&limit=1")["dag_runs"]
    folder = Path(stand["store"].removeprefix("file://")) / "records" / "digits-onnx"
    records = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    return next(found for found in records if found["run_id"] == run["dag_run_id"])


def test_it_goes_live_through_every_gate(live):
    """Smoke test, preview gate and gate passed over REST and gRPC, and its record says the runtime."""
    assert (live["outcome"], live["release"]["runtime"]) == ("live", "onnxruntime")
    assert {live["verdicts"][gate]["outcome"] for gate in ("preview_gate", "gate")} == {"pass"}
    assert "over gRPC" in live["verdicts"]["gate"]["reason"]


def test_what_runs_is_the_server_of_onnx_runtime(live, kubectl, engine):
    """The pod runs the image that was pushed, which is made on the server's image."""
    [pod] = json.loads(kubectl("get", "pods", "-l", f"slipway/release={live['release_id']}", "-o", "json"))["items"]
    assert pod["status"]["containerStatuses"][0]["imageID"].endswith(live["digest"])
    labels = engine.inspect_image(live["pushed"]["reference"])["Config"]["Labels"]
    assert (labels["slipway.runtime"], labels["slipway.precision"]) == ("onnxruntime", "float32")
    assert "slipway.stand-in" not in labels


def test_tensorflows_own_grpc_client_is_answered(live, stand):
    """`tensorflow-serving-api`'s client notices no difference: label, confidence, and the version that is live."""
    address = from_status("digits-onnx")["grpc"]
    words = [stand["exporter_python"], "-c", GRPC_CLIENT, address, str(GOLDEN / "three.png"), "digits-onnx"]
    done = subprocess.run(words, capture_output=True, text=True, check=True, timeout=600)
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["label"], answer["version"]) == ("3", live["version"])
    assert answer["confidence"] > 0.8


@pytest.fixture(scope="module")
def harness(tmp_path_factory, surroundings, stand, kubectl, engine):
    """A harness with a release of TensorFlow live, a labelled set, and the drain of the base's manifests: 10 s."""
    quality = {"set": f"{MODEL}/{SET}", "max_drop": 0.0}
    root, fields = tmp_path_factory.mktemp(MODEL), {"target__strategy": "preview", "gate__quality": quality}
    harness = RefreshHarness.make(root, surroundings, stand, kubectl, engine, model=MODEL, **fields)
    for label, name in {"3": "three", "7": "seven", "8": "eight"}.items():
        folder = harness.file.parent / MODEL / SET / label
        folder.mkdir(parents=True)
        shutil.copy(GOLDEN / f"{name}.png", folder)

    def drain(deployment):
        spec = deployment["spec"]["template"]["spec"]
        spec["terminationGracePeriodSeconds"] = 20
        spec["containers"][0]["lifecycle"] = DRAIN

    with harness.overlay(drain):
        harness.run()
        yield harness
    harness.end()


def choose(harness, runtime):
    """Name the runtime in the model file."""
    file = yaml.safe_load(harness.file.read_text())
    harness.file.write_text(yaml.safe_dump({**file, "serving": {"runtime": runtime}}))


@contextmanager
def nothing_lost(harness, what):
    """Send steady requests to the public address during the block. Each must be answered correctly."""
    client, seen = Client(harness.load_target(), rate=5, limit_s=900, ways=SHORT), {}
    try:
        yield
    finally:
        seen |= client.end()
        for way, found in seen.items():
            counts = f"{found['requests']} requests, {len(found['failed'])} failed, {len(found['wrong'])} wrong"
            print(f"{what}: {way}: {counts}, p50 {found['p50_ms']} ms, p99 {found['p99_ms']} ms")
    for found in seen.values():
        assert found["requests"] > 50
        assert (found["failed"], found["wrong"]) == ([], [])


@pytest.mark.alongside
def test_1_a_model_changes_to_onnx_runtime(harness):
    """The same checkpoint is exported, previewed, compared with the live release on the labelled set, and goes live."""
    choose(harness, "onnxruntime")
    with nothing_lost(harness, "to ONNX Runtime"):
        run = harness.run()
    assert "the runtime changed from tensorflow to onnxruntime" in run.log
    harness.assert_live(run, version=2)
    assert run.record()["release"]["runtime"] == "onnxruntime"
    reason = run.record()["verdicts"]["preview_gate"]["reason"]
    assert "quality: 3 of 3 correct, the live release 3 (measured by run " in reason


@pytest.mark.alongside
@pytest.mark.parametrize(
    ("runtime", "base", "said"),
    [
        ("onnxruntime", "serving_image", "says tensorflow, and serving.runtime is onnxruntime"),
        ("tensorflow", "onnx_serving_image", "says onnxruntime, and serving.runtime is tensorflow"),
    ],
)
def test_1b_a_base_image_of_the_other_runtime_is_refused(harness, runtime, base, said):
    """`resolve` says so in one line, before anything is exported."""
    before = harness.serves()
    with harness.changed(serving__runtime=runtime, image__base=harness.stand[base]):
        run = harness.run(green=None)
    assert not run.green
    assert f"its label slipway.runtime {said}. Next: " in run.log
    assert "exporter:" not in run.log
    assert harness.serves() == before


@pytest.mark.alongside
def test_2_and_back_to_tensorflow(harness):
    """The export is found in the store, under the version that it had: nothing is exported again."""
    choose(harness, "tensorflow")
    with nothing_lost(harness, "back to TensorFlow"):
        run = harness.run()
    assert "the runtime changed from onnxruntime to tensorflow" in run.log
    assert "export: found in the store" in run.log
    harness.assert_live(run, version=1)
    assert run.record()["release"]["runtime"] == "tensorflow"


def newest(harness, runtime):
    """The release on this runtime that was proven live last, and its version."""
    records = [found for found in harness.records().values() if found["outcome"] == "live"]
    found = max((one for one in records if one["release"]["runtime"] == runtime), key=lambda one: one["opened"])
    return {"release": found["release_id"], "version": found["version"]}


@pytest.mark.alongside
def test_3_a_rollback_by_hand_crosses_the_runtimes(harness):
    """It brings back the recorded image and manifests of the other runtime, whatever the model file says now."""
    wanted = newest(harness, "onnxruntime")
    with nothing_lost(harness, "rollback by hand"):
        run = harness.run(harness.dag_of("rollback"), release=wanted["release"])
    assert harness.serves() == wanted
    assert run.record("rollback")["release"]["runtime"] == "onnxruntime"
    assert harness.debris() == []


@pytest.mark.alongside
def test_4_a_failed_run_is_rolled_back_across_the_runtimes(harness):
    """A rolling update to the other runtime that never gets ready is replaced by the live release's own runtime."""
    good = harness.serves()
    with (
        nothing_lost(harness, "failed change, rolled back"),
        harness.changed(target__strategy="rolling"),
        harness.container(**BAD_FLAG),
    ):
        bad = harness.run(green=False)
    assert bad.record()["release"]["runtime"] == "tensorflow"
    harness.assert_given_up(bad, words="CrashLoopBackOff", good=good)
    assert newest(harness, "onnxruntime") == good


@pytest.mark.alongside
def test_5_int8_is_judged_where_it_serves(harness):
    """The preview's labels are compared with those of the same model in float32; the image and the record say int8."""
    choose(harness, "onnxruntime")
    with harness.changed(export__precision="int8"), nothing_lost(harness, "to int8"):
        run = harness.run()
    harness.assert_live(run, version=3)
    record = run.record()
    assert (record["release"]["precision"], record["release"]["runtime"]) == ("int8", "onnxruntime")
    found = record["verdicts"]["preview_gate"]
    assert "0 of 3 labels changed against float32, 0 fewer correct" in found["reason"]
    assert found["measured"]["int8"] == {"images": 3, "changed": [], "lost": [], "won": []}
    labels = harness.engine.inspect_image(record["pushed"]["reference"])["Config"]["Labels"]
    assert labels["slipway.precision"] == "int8"
