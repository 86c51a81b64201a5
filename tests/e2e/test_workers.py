"""Each task on a worker of its own: nothing shared but the store, the database's facts and the engine."""

import json
import tarfile
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from own_airflow import OwnAirflow
from trial_project import copy_project, remove_images, trial_file
from workers import TASKS

from slipway.facts import from_dict
from slipway.release import Release

pytestmark = [pytest.mark.stand, pytest.mark.alongside]


def test_every_task_hands_on_by_the_store_alone(trial):
    """A release goes live though no two tasks share a home, a folder or a checkout."""
    assert "3 of 3 rounds in a row passed" in trial.facts["gate"]
    assert "3 of 3 over gRPC, by the same version" in trial.facts["gate"]
    assert all(trial.facts[task] for task in TASKS)


def test_the_image_changes_nothing_but_model_name_and_labels(trial, engine):
    """The commit leaves the base image's configuration as it was, but for MODEL_NAME and labels."""
    base = engine.inspect_image(from_dict(Release, trial.facts["resolve"]).base_reference)["Config"]
    made = engine.inspect_image(trial.facts["build_image"]["image_id"])["Config"]
    renamed = {**dict(word.split("=", 1) for word in base["Env"]), "MODEL_NAME": "trial"}
    assert dict(word.split("=", 1) for word in made["Env"]) == renamed
    ours = {"Env", "Labels", "Image"}  # Image is the engine's note of the parent
    assert {k: v for k, v in made.items() if k not in ours} == {k: v for k, v in base.items() if k not in ours}
    assert (base["Labels"] or {}).items() <= made["Labels"].items()


def test_no_container_stays_behind(trial, engine):
    """Neither the build's nor the smoke test's container is there afterwards."""
    release = from_dict(Release, trial.facts["resolve"])
    names = {name for found in engine.containers(all=True) for name in found["Names"]}
    assert names & {f"/{release.build_container}", f"/{release.smoke_container}"} == set()


def test_two_builds_of_one_export_have_one_layer(trial, engine):
    """Forced to build again, the model's layer keeps its digest, so a push sends no layer bytes."""
    facts = {**trial.facts, "resolve": {**trial.facts["resolve"], "force": True}}
    done = trial.run("build_image", facts=facts, check=False)
    again = json.loads(done.stdout.splitlines()[-1])
    assert again["layer"] == trial.facts["build_image"]["layer"]
    assert again["image_id"] != trial.facts["build_image"]["image_id"]


def test_a_task_that_misses_its_image_builds_and_proves_it_again(trial, engine, stand):
    """Push on an engine without the proven image builds it again, and pushes only what passed the smoke test there."""
    remove_images(engine, "trial")
    done = trial.run("push", check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "building and testing it here" in done.stdout + done.stderr
    pushed = json.loads(done.stdout.splitlines()[-1])
    held = engine.inspect_distribution(f"{stand['registry']}/trial@{pushed['digest']}")["Descriptor"]["digest"]
    assert held == pushed["digest"]


def test_a_second_apply_changes_nothing(trial, kubectl):
    """The same release applied again leaves every object's generation and resource version as they were."""
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
    done = trial.run(
        "apply", facts={**trial.facts, "resolve": {**trial.facts["resolve"], "model": "thief"}}, check=False
    )
    labels = json.loads(kubectl("get", "deployment/tfs-trial", "-o", "json"))["metadata"]["labels"]
    assert done.returncode != 0
    assert "belongs to the model trial" in done.stderr
    assert labels["slipway/model"] == "trial"


def test_a_field_owned_elsewhere_is_named(trial, kubectl):
    """Where another field manager owns a field that the manifests set, apply says who and which, and forces nothing."""
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


def test_an_image_that_is_not_there_fails_the_rollout_with_pods_reasons(trial, kubectl):
    """A rollout that cannot come says why in one line and names the next command; here the registry lacks the digest."""
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
    """A SavedModel whose variables are cut off makes an image that the smoke test refuses in one line."""
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
    said = done.stderr.strip().splitlines()[-1]
    assert done.returncode != 0
    assert "SmokeTestFailed: image " in said
    assert "the server ended with status 255 before version 1 was AVAILABLE" in said


def test_a_wrong_answer_at_the_address_makes_the_run_red(tmp_path, surroundings, kubectl):
    """A red gate is a red run: no announcement, a record that says failed, though record itself succeeds."""
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
    assert left == "", "a first release that failed is taken away again"
    assert records[0]["tasks"]["announce"] == "upstream_failed"


FAILED = {"states": {"apply": "success", "wait_for_rollout": "failed", "rollback": "running"}}


def serves(kubectl):
    """The release that the trial's Deployment says it is."""
    return json.loads(kubectl("get", "deployment/tfs-trial", "-o", "json"))["metadata"]["labels"]["slipway/release"]


def test_a_run_that_was_live_and_is_cleared_brings_back_what_it_had(trial, kubectl):
    """A first release that is live does not go because its run is tried again with something that fails: it comes back, gated."""
    good = serves(kubectl)
    trial.run("record", facts={**trial.facts, "states": {"gate": "success", "record": "running"}})
    cleared = without_image(trial)
    assert trial.run("apply", facts=cleared, check=False).returncode == 0
    assert serves(kubectl) == "missing00000"
    undone = json.loads(trial.run("rollback", facts={**cleared, **FAILED}).stdout.splitlines()[-1])
    assert (undone["action"], undone["release"], serves(kubectl)) == ("restore", good, good)


def test_what_another_store_knows_is_not_taken_away(trial, tmp_path, kubectl):
    """A run that finds the Deployment of an installation with another store does not delete it where its own release fails."""
    good, store = serves(kubectl), f"file://{tmp_path}/store"
    facts = without_image(trial)
    facts |= {"resolve": {**facts["resolve"], "store": store}, **FAILED}
    assert trial.run("apply", facts=facts, store=store, check=False).returncode == 0
    kept = json.loads(trial.run("rollback", facts=facts, store=store).stdout.splitlines()[-1])
    assert (kept["action"], serves(kubectl)) == ("keep", "missing00000")
    assert "a release that this store has no record of" in kept["reason"]

    trial.run("apply")  # the other installation has brought its own again
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
    """Answers every question wrong, as a server with another model behind the address would."""

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
    """A server at a loopback address that is up as long as the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Wrong)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
