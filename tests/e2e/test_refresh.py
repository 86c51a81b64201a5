"""One full run through the scheduler and the triggerer, checked by independent clients."""

import base64
import json
import subprocess
import urllib.request
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
GOLDEN = PROJECT / "include" / "served" / "digits-vit" / "golden"

pytestmark = pytest.mark.stand

GRPC_CLIENT = """
import sys, base64, json
import grpc, tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
address, image, model = sys.argv[1], open(sys.argv[2], "rb").read(), sys.argv[3]
request = predict_pb2.PredictRequest()
request.model_spec.name = model
request.model_spec.signature_name = "serving_default"
request.inputs["string_input"].CopyFrom(tf.make_tensor_proto([base64.urlsafe_b64encode(image).decode()]))
answer = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(address)).Predict(request, timeout=600)
print(json.dumps({"label": answer.outputs["label"].string_val[0].decode(), "version": answer.model_spec.version.value,
                  "confidence": float(tf.make_ndarray(answer.outputs["confidence"])[0])}))
"""


def test_the_run_is_green_and_every_task_ran(refreshed, airflow_api):
    """A refresh of the shipped model ends in success, task by task, through deferral."""
    run_id = refreshed["run"]["dag_run_id"]
    tasks = airflow_api(f"/dags/refresh_digits_vit/dagRuns/{run_id}/taskInstances")["task_instances"]
    assert refreshed["run"]["state"] == "success"
    assert {task["task_id"]: task["state"] for task in tasks} == dict.fromkeys(
        ["resolve", "plan", "export", "build_image", "smoke_test", "push", "preview", "wait_for_preview", "preview_gate", "apply",
         "wait_for_rollout", "wait_for_address", "gate", "announce", "remove_preview", "record", "prune"],
        "success",
    ) | {"rollback": "skipped"}  # fmt: skip


def test_the_asset_event_names_the_release(refreshed, record, airflow_api):
    """The event of the model's Asset names release, image, version and address."""
    events = airflow_api("/assets/events?source_dag_id=refresh_digits_vit&order_by=-timestamp&limit=1")["asset_events"]
    assert events[0]["source_run_id"] == refreshed["run"]["dag_run_id"]
    assert events[0]["extra"]["release"] == record["release_id"]
    assert events[0]["extra"]["image"].endswith(record["digest"])


def test_the_record_says_how_it_went(record, stand):
    """The record of a proven run is closed, live, and names digest, version, manifests, objects and verdicts."""
    manifests = Path(record["manifests"]["uri"].removeprefix("file://"))
    assert (record["schema"], record["outcome"]) == (1, "live")
    assert record["opened"] < record["closed"]
    assert {ref["kind"] for ref in record["objects"]} == {
        "ConfigMap", "Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget",
    }  # fmt: skip
    assert {record["verdicts"][gate]["outcome"] for gate in ("preview_gate", "gate")} == {"pass"}
    assert record["preview"] == []
    assert record["digest"] in manifests.read_text()


def test_kubectl_agrees_that_it_is_rolled_out(refreshed, kubectl):
    """`kubectl rollout status` passes at once."""
    assert "successfully rolled out" in kubectl("rollout", "status", "deployment/tfs-server", "--timeout=300s")


def test_the_live_deployment_names_its_release(record, kubectl):
    """The Deployment's labels say which release and version is live."""
    labels = json.loads(kubectl("get", "deployment/tfs-server", "-o", "json"))["metadata"]["labels"]
    assert labels["slipway/release"] == record["release_id"]
    assert labels["slipway/version"] == str(record["version"])
    assert labels["slipway/model"] == "digits-vit"


def test_the_digest_that_runs_is_the_digest_pushed(refreshed, record, kubectl, stand):
    """The registry, read with Skopeo, has the digest that the record names and the pod runs."""
    image = f"{stand['registry']}/digits-vit"
    pods = json.loads(kubectl("get", "pods", "-l", f"slipway/release={record['release_id']}", "-o", "json"))["items"]
    running = {pod["status"]["containerStatuses"][0]["imageID"].split("@")[-1] for pod in pods}
    inspected = subprocess.run(
        ["skopeo", "inspect", "--tls-verify=false", f"docker://{image}@{record['digest']}"],
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    labels = json.loads(inspected.stdout)["Labels"]
    assert json.loads(inspected.stdout)["Digest"] == record["digest"]
    assert running == {record["digest"]}
    assert labels["org.opencontainers.image.version"] == str(record["version"])
    assert labels["org.opencontainers.image.base.digest"] == record["release"]["base_digest"]


@pytest.mark.parametrize(("name", "label"), [("three", "3"), ("seven", "7"), ("eight", "8")])
def test_curl_with_the_seeds_request_is_answered(refreshed, stand, name, label):
    """The seed's request, web-safe base64 in `instances`, brings label and confidence."""
    image = base64.urlsafe_b64encode((GOLDEN / f"{name}.png").read_bytes()).decode()
    body = json.dumps({"signature_name": "serving_default", "instances": [image]})
    rest = from_status()["rest"]
    done = subprocess.run(
        ["curl", "-sS", "--fail", "-d", "@-", f"{rest}/v1/models/digits-vit:predict"],
        input=body, capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    prediction = json.loads(done.stdout)["predictions"][0]
    assert prediction["label"] == label
    assert prediction["confidence"] > 0.8


def test_tensorflows_own_grpc_client_is_answered(refreshed, record, stand):
    """`tensorflow-serving-api`'s client gets the same answer, and the version that is live."""
    done = subprocess.run(
        [stand["exporter_python"], "-c", GRPC_CLIENT, from_status()["grpc"], str(GOLDEN / "three.png"), "digits-vit"],
        capture_output=True, text=True, check=True, timeout=600,
    )  # fmt: skip
    answer = json.loads(done.stdout.splitlines()[-1])
    assert (answer["label"], answer["version"]) == ("3", record["version"])
    assert answer["confidence"] > 0.8


def test_a_wrong_version_is_not_found(refreshed, stand):
    """`/versions/N` is 404 for another version: an answer proves which version gave it."""
    request = urllib.request.Request(f"{from_status()['rest']}/v1/models/digits-vit/versions/999999")
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=300)
    assert refused.value.code == 404


def from_status(model="digits-vit"):
    """A model's endpoints as `status` names them now."""
    done = subprocess.run(
        ["python3", "-m", "local", "status", "--json"],
        capture_output=True,
        text=True,
        check=True,
        cwd=PROJECT,
        timeout=600,
    )
    return json.loads(done.stdout)["endpoints"][model]


PARAMS = {
    "revision": ('""', "'' should be non-empty"),
    "overlay": ("nowhere", "'nowhere' is not one of [None, "),
    "min_confidence": ("1.5", "1.5 is greater than the maximum of 1"),
    "force": ("3", "3 is not of type 'boolean'"),
    "plan_only": ("perhaps", "'perhaps' is not of type 'boolean'"),
}


@pytest.mark.parametrize(("name", "value", "words"), [(name, *param) for name, param in PARAMS.items()], ids=PARAMS)
def test_an_invalid_param_starts_no_run(airflow_api, refresh, name, value, words):
    """Airflow itself refuses the Param; the command prints one line with its name, its value and what is allowed."""
    runs = "/dags/refresh_digits_vit/dagRuns?limit=1"
    before = airflow_api(runs)["total_entries"]
    done = refresh("digits-vit", "--param", f"{name}={value}")
    [line] = (done.stdout + done.stderr).strip().splitlines()
    assert done.returncode == 1
    assert line.startswith(f"Param {name}: {words}")
    assert line.endswith(f". Next: correct --param {name}=…, or omit it")
    assert airflow_api(runs)["total_entries"] == before


def test_the_form_has_a_text_for_an_empty_overlay(airflow_api):
    """The form shows this text in place of `null`."""
    overlay = airflow_api("/dags/refresh_digits_vit/details")["params"]["overlay"]
    assert overlay["schema"]["values_display"] == {"null": "as the model file says"}
