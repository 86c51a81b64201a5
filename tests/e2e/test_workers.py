"""Each task on a worker of its own: workers share only the store, the facts in XCom and the engine."""

import json
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from own_airflow import OwnAirflow
from trial_project import copy_project, remove_images, rendered_again, trial_file
from workers import TASKS

from slipway.facts import from_dict
from slipway.release import Release

pytestmark = [pytest.mark.stand, pytest.mark.alongside]


def test_tasks_share_files_only_through_the_store(trial):
    """A release goes live although no two tasks share a home, a folder or a checkout."""
    assert "3 of 3 rounds in a row passed" in trial.facts["gate"]
    assert "3 of 3 over gRPC, by the same version" in trial.facts["gate"]
    assert all(trial.facts[task] for task in TASKS)


def test_the_image_changes_nothing_but_model_name_and_labels(trial, engine):
    """The commit keeps the base image's configuration except for MODEL_NAME and labels."""
    base = engine.inspect_image(from_dict(Release, trial.facts["resolve"]).base_reference)["Config"]
    made = engine.inspect_image(trial.facts["build_image"]["image_id"])["Config"]
    renamed = {**dict(word.split("=", 1) for word in base["Env"]), "MODEL_NAME": "trial"}
    assert dict(word.split("=", 1) for word in made["Env"]) == renamed
    ours = {"Env", "Labels", "Image"}  # Image is the engine's note of the parent
    assert {k: v for k, v in made.items() if k not in ours} == {k: v for k, v in base.items() if k not in ours}
    assert (base["Labels"] or {}).items() <= made["Labels"].items()


def test_no_container_is_left(trial, engine):
    """Neither the build's nor the smoke test's container is left."""
    release = from_dict(Release, trial.facts["resolve"])
    names = {name for found in engine.containers(all=True) for name in found["Names"]}
    assert names & {f"/{release.build_container}", f"/{release.smoke_container}"} == set()


def test_two_builds_of_one_export_have_one_layer(trial, engine):
    """A forced second build makes the same layer of the model, so a push sends no layer again. The image has its own tag."""
    facts = {**trial.facts, "resolve": {**trial.facts["resolve"], "force": True}}
    done = trial.run("build_image", facts=facts, check=False)
    again = json.loads(done.stdout.splitlines()[-1])
    assert again["layer"] == trial.facts["build_image"]["layer"]
    assert again["image_id"] != trial.facts["build_image"]["image_id"]
    assert again["reference"] != trial.facts["build_image"]["reference"]


def test_push_builds_and_tests_an_image_again_that_its_engine_lacks(trial, engine, stand):
    """On an engine without the tested image, push builds it again, and pushes only what passed the smoke test there."""
    remove_images(engine, "trial")
    done = trial.run("push", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "building and testing it here" in done.stdout + done.stderr
    pushed = json.loads(done.stdout.splitlines()[-1])
    held = engine.inspect_distribution(f"{stand['registry']}/trial@{pushed['digest']}")["Descriptor"]["digest"]
    assert held == pushed["digest"]


def test_a_second_apply_changes_nothing(trial, kubectl):
    """The same release applied again changes no object's generation."""
    kinds = "deployment,service,pdb"

    def versions():
        items = json.loads(kubectl("get", kinds, "-l", "slipway/model=trial", "-o", "json"))["items"]
        return {item["kind"]: item["metadata"]["generation"] for item in items if "generation" in item["metadata"]}

    before = versions()
    done = trial.run("apply", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert versions() == before
    assert json.loads(done.stdout.splitlines()[-1])["generation"] == trial.facts["apply"]["generation"]


def test_an_object_of_another_model_is_not_touched(trial, surroundings, tmp_path, kubectl):
    """A model whose file names another model's Deployment is refused before anything is written."""
    thief = rendered_again(trial.facts["resolve"], model="thief")
    done = trial.run("apply", facts={**trial.facts, "resolve": thief}, check=False)
    labels = json.loads(kubectl("get", "deployment/tfs-trial", "-o", "json"))["metadata"]["labels"]
    assert done.returncode != 0
    assert "belongs to the model trial" in done.stderr
    assert labels["slipway/model"] == "trial"


def test_a_field_owned_elsewhere_is_named(trial, kubectl):
    """If another field manager owns a field that the manifests set, apply names both, and changes nothing."""
    patch = json.dumps({"spec": {"revisionHistoryLimit": 3}})
    kubectl("patch", "deployment/tfs-trial", "--field-manager=somebody", "-p", patch)
    done = trial.run("apply", check=False)
    kept = json.loads(kubectl("get", "deployment/tfs-trial", "-o", "json"))["spec"]["revisionHistoryLimit"]
    kubectl(
        "patch",
        "deployment/tfs-trial",
        "--field-manager=slipway",
        "-p",
        json.dumps({"spec": {"revisionHistoryLimit": 10}}),
    )
    assert done.returncode != 0
    assert "FieldOwnedElsewhere" in done.stderr
    assert "somebody" in done.stderr
    assert ".spec.revisionHistoryLimit" in done.stderr
    assert kept == 3


def test_a_missing_image_fails_the_rollout_with_the_pods_reason(trial, kubectl):
    """A stuck rollout fails in one line with the reason and the next command; here the registry lacks the image."""
    facts = without_image(trial)
    applied = json.loads(trial.run("apply", facts=facts, check=False).stdout.splitlines()[-1])
    done = trial.run("wait_for_rollout", facts={**facts, "apply": applied}, check=False)
    trial.run("apply")
    trial.run("wait_for_rollout")
    assert done.returncode != 0
    assert "RolloutFailed" in done.stderr
    assert "ImagePull" in done.stderr
    assert ": not found" in done.stderr
    assert "time is up" not in done.stderr
    assert "Next: kubectl -n" in done.stderr


def without_image(trial):
    """The facts of a run whose image the registry does not have."""
    missing = "sha256:" + "0" * 64
    reference = trial.facts["push"]["reference"].split("@")[0] + "@" + missing
    pushed = {**trial.facts["push"], "reference": reference, "digest": missing, "release_id": "missing00000"}
    return {**trial.facts, "push": pushed}


def test_a_corrupt_savedmodel_is_caught_before_the_push(trial, tmp_path):
    """An image whose SavedModel has truncated variables fails the smoke test in one line."""
    export = trial.facts["export"]
    whole, cut = Path(export["model_uri"].removeprefix("file://")), tmp_path / "model.tar"
    with tarfile.open(whole) as members, tarfile.open(cut, "w") as archive:
        for member in members:
            content = members.extractfile(member)
            if "variables.data" in member.name:
                member.size //= 2
            archive.addfile(member, content)
    facts = {**trial.facts, "export": {**export, "model_uri": f"file://{cut}", "content_hash": f"sha256:{'c' * 64}"}}
    built = json.loads(trial.run("build_image", facts=facts, check=False).stdout.splitlines()[-1])
    done = trial.run("smoke_test", facts={**facts, "build_image": built}, check=False)
    line = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0
    assert "SmokeTestFailed: image " in line
    assert "the server ended with status 255 before version 1 was AVAILABLE" in line


def test_a_wrong_answer_at_the_address_makes_the_run_red(tmp_path, surroundings, kubectl):
    """A failed gate makes the run red: nothing is announced, and the record says failed, although the task `record` succeeds."""
    with wrong_server() as address:
        file = trial_file(target__deployment="tfs-red", target__address=address)
        project = copy_project(tmp_path / "project", "red", file)
        airflow = OwnAirflow(tmp_path, project, surroundings)
        code, log = airflow.command("dags", "test", "refresh_red")
        airflow.end()
    left = kubectl("get", "deployment,service,hpa,pdb", "-l", "slipway/model=red", "-o", "name")
    records = [json.loads(path.read_text()) for path in (tmp_path / "store" / "records" / "red").glob("*.json")]
    assert code != 0
    assert "wrong label" in log
    assert [found["outcome"] for found in records] == ["failed"]
    assert records[0]["tasks"]["gate"] == "failed"
    assert "wrong label" in records[0]["verdicts"]["gate"]["reason"]
    assert left == "", "a first release that failed is removed"
    assert records[0]["tasks"]["announce"] == "upstream_failed"


FAILED = {"states": {"apply": "success", "wait_for_rollout": "failed", "rollback": "running"}}


def serves(kubectl):
    """The release that the trial's Deployment is labelled with."""
    return json.loads(kubectl("get", "deployment/tfs-trial", "-o", "json"))["metadata"]["labels"]["slipway/release"]


def test_a_cleared_run_that_fails_restores_its_live_release(trial, kubectl):
    """A live first release is not removed if its run is cleared and then fails: it is applied again and gated."""
    good = serves(kubectl)
    trial.run("record", facts={**trial.facts, "states": {"gate": "success", "record": "running"}})
    cleared = without_image(trial)
    assert trial.run("apply", facts=cleared, check=False).returncode == 0
    assert serves(kubectl) == "missing00000"
    restored = json.loads(trial.run("rollback", facts={**cleared, **FAILED}).stdout.splitlines()[-1])
    assert (restored["action"], restored["release"], serves(kubectl)) == ("restore", good, good)


def test_a_release_of_another_store_is_not_removed(trial, tmp_path, kubectl):
    """If the Deployment belongs to an installation with another store, a run whose own release fails does not delete it."""
    good, store = serves(kubectl), f"file://{tmp_path}/store"
    facts = without_image(trial)
    facts |= {"resolve": rendered_again(facts["resolve"], store=store), **FAILED}
    assert trial.run("apply", facts=facts, store=store, check=False).returncode == 0
    kept = json.loads(trial.run("rollback", facts=facts, store=store).stdout.splitlines()[-1])
    assert (kept["action"], serves(kubectl)) == ("keep", "missing00000")
    assert "a release that this store has no record of" in kept["reason"]

    trial.run("apply")  # the other installation applies its own release again
    [path] = (tmp_path / "store" / "records" / "trial").glob("*.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "found": False}))
    done = trial.run("rollback", facts=facts, store=store)
    assert json.loads(done.stdout.splitlines()[-1])["action"] == "remove"
    assert (
        f"deployment/tfs-trial is kept: it is of release {good}, which is unknown here"
        in (done.stdout + done.stderr).lower()
    )
    assert serves(kubectl) == good


class _Wrong(BaseHTTPRequestHandler):
    """Answers every request with a wrong label, like a server with another model."""

    def do_POST(self):
        body = json.dumps({"predictions": [{"label": "0", "confidence": 0.99}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@contextmanager
def wrong_server():
    """A server on loopback for the length of the block; its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Wrong)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
