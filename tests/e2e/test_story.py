"""The story of one model on the real stand, from its first release to a rollback by hand, checked after every step.

Each step is one run of a DAG (`airflow dags test`: the real operators, sensors and triggers in one process, on a database of its
own) against the real engine, registry and cluster. The tests run in order: each continues where the one before ended.
"""

import base64
import json
import re
import struct
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from threading import Thread
from uuid import uuid4

import pytest
import yaml
from own_airflow import OwnAirflow
from trial_project import copy_project, remove_images, trial_file

MODELS = {"tensorflow": ("story", {}), "onnxruntime": ("onnxstory", {"serving__runtime": "onnxruntime"})}
GIVEN_UP_S = 10  # the gate's limit if its requests go to a port where nothing listens
BUILDS = ("exporter:", "smoke test:", "push: ")  # in the log of a run that builds

pytestmark = [pytest.mark.stand, pytest.mark.alongside]


class Story:
    """A project, an Airflow and an artifact store of its own, for many runs of one model."""

    def __init__(self, root, model, surroundings, *, stand, kubectl, engine, **changes):
        self.root, self.stand, self.kubectl, self.engine, self.model = root, stand, kubectl, engine, model
        self.deployment = f"tfs-{model}"
        own = {"target__deployment": self.deployment, "source__folder": f"{model}/checkpoint"}
        file = trial_file(**own, **changes)
        self.project = copy_project(root / "project", model, file)
        served = self.project / "include" / "served"
        (served / "digits-vit").rename(served / model)
        (served / "digits-vit.yaml").unlink()
        self.file = served / f"{model}.yaml"
        self.file.write_text(self.file.read_text().replace("digits-vit/golden", f"{model}/golden"))
        self.checkpoint = served / model / "checkpoint"
        self.overlay = self.project / "include" / "manifests" / "overlays" / "local"
        self.airflow = OwnAirflow(root, self.project, surroundings)
        self.store = self.airflow.store

    def end(self):
        """Remove all that it made; its pods may still drain."""
        self.airflow.end()
        self.kubectl(
            "delete", "deployment,service,hpa,pdb,configmap,lease", "-l", f"slipway/model={self.model}", "--wait=false"
        )
        remove_images(self.engine, self.model)

    def run(self, dag=None, *, green=True, **conf):
        """Run a DAG, by default the refresh; its log, and the records that it left, oldest first."""
        before, dag = set(self.records()), dag or f"refresh_{self.model}"
        code, log = self.airflow.command("dags", "test", dag, "-c", json.dumps(conf))
        errors = [line for line in log.splitlines() if "[error" in line]
        assert (code == 0) is green, "\n".join([*errors, log[-3000:]])
        new = [record for name, record in self.records().items() if name not in before]
        return log, sorted(new, key=lambda record: record["opened"])

    def kill_when(self, seen, dag=None):
        """Kill a run of a DAG, by default the refresh, with SIGKILL as soon as `seen()` is true; its record."""
        before, kill = set(self.records()), self.root / f"kill-{uuid4().hex[:6]}"
        words, how = ("dags", "test", dag or f"refresh_{self.model}"), {"began": kill, "kill_after_s": 0}
        run = Thread(target=self.airflow.command, args=words, kwargs=how)
        run.start()
        try:
            while not seen():
                assert run.is_alive(), "the run ended before it was seen"
                time.sleep(1)
        finally:
            kill.touch()
            run.join()
        return next(record for name, record in self.records().items() if name not in before)

    def kill_after_apply(self):
        """Kill a refresh as soon as it has written to the cluster; its record."""
        before = set(self.records())

        def applied():
            new = [record for name, record in self.records().items() if name not in before]
            return new and self.labels()["slipway/release"] == new[0]["release_id"]

        return self.kill_when(applied)

    @contextmanager
    def broken_target_port(self):
        """For the block, the overlay points the Service at a port where nothing listens, and the gate has a short time limit."""
        overlay = self.overlay / "kustomization.yaml"
        good = {path: path.read_text() for path in (overlay, self.file)}
        patch = [{"op": "replace", "path": "/spec/ports/1/targetPort", "value": 8599}]
        broken = yaml.safe_load(good[overlay])
        broken["patches"].append({"target": {"kind": "Service"}, "patch": yaml.safe_dump(patch)})
        overlay.write_text(yaml.safe_dump(broken))
        file = yaml.safe_load(good[self.file])
        self.file.write_text(yaml.safe_dump({**file, "gate": {**file["gate"], "timeout_s": GIVEN_UP_S}}))
        try:
            yield
        finally:
            for path, text in good.items():
                path.write_text(text)

    @contextmanager
    def swapped_labels(self):
        """For the block, the checkpoint has its labels 3 and 8 swapped."""
        config = self.checkpoint / "config.json"
        good = config.read_text()
        labels = json.loads(good)
        labels["id2label"] = {**labels["id2label"], "3": "8", "8": "3"}
        config.write_text(json.dumps(labels))
        try:
            yield
        finally:
            config.write_text(good)

    def records(self):
        """Every record there is, by file name."""
        return {path.name: json.loads(path.read_text()) for path in self.store.glob(f"records/{self.model}/*.json")}

    def labels(self):
        """The Deployment's labels."""
        return json.loads(self.kubectl("get", f"deployment/{self.deployment}", "-o", "json"))["metadata"]["labels"]

    def live(self):
        """The release and version in the Deployment's labels; kubectl and a request confirm that they are rolled out and answer."""
        labels = self.labels()
        service = json.loads(self.kubectl("get", f"service/{self.deployment}", "-o", "json"))
        address = service["status"]["loadBalancer"]["ingress"][0]["ip"]
        assert "successfully rolled out" in self.kubectl(
            "rollout", "status", f"deployment/{self.deployment}", "--timeout=1800s"
        )
        image = base64.urlsafe_b64encode((self.file.parent / self.model / "golden" / "seven.png").read_bytes()).decode()
        body = json.dumps({"signature_name": "serving_default", "instances": [image]})
        path = f"/v1/models/{self.model}/versions/{labels['slipway/version']}:predict"
        answer = json.load(urllib.request.urlopen(f"http://{address}:8501{path}", body.encode(), timeout=300))
        assert answer["predictions"][0]["label"] == "7"
        return {"release": labels["slipway/release"], "version": int(labels["slipway/version"])}

    def traces(self):
        """Everything that a run can write to: store, cluster, engine and registry."""
        objects = json.loads(
            self.kubectl("get", "deployment,service,hpa,pdb", "-l", f"slipway/model={self.model}", "-o", "json")
        )
        return {
            "store": {str(path): path.stat().st_mtime_ns for path in self.store.rglob("*") if path.is_file()},
            "cluster": {item["kind"]: item["metadata"].get("managedFields", [{}])[0] for item in objects["items"]}
            | {item["kind"] + " generation": item["metadata"].get("generation") for item in objects["items"]},
            "engine": sorted(
                image["Id"]
                for image in self.engine.images(filters={"label": f"org.opencontainers.image.title={self.model}"})
            ),
            "registry": self.registry(),
        }

    def registry(self):
        """The tags that the registry holds of the model's image."""
        return sorted(json.load(urllib.request.urlopen(f"{self.repository_url()}/tags/list", timeout=300))["tags"])

    def is_held(self, digest):
        """Whether the registry holds the image with this digest."""
        accept = {"Accept": "application/vnd.docker.distribution.manifest.v2+json"}
        asked = urllib.request.Request(f"{self.repository_url()}/manifests/{digest}", headers=accept, method="HEAD")
        try:
            return urllib.request.urlopen(asked, timeout=300).status == 200
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return False
            raise

    def repository_url(self):
        """The URL of the model's images in the registry's API."""
        host, prefix = self.stand["registry"].split("/", 1)
        return f"http://{host}/v2/{prefix}/{self.model}"


@pytest.fixture(scope="module", params=["tensorflow", pytest.param("onnxruntime", marks=pytest.mark.slow)])
def story(request, tmp_path_factory, surroundings):
    """The model's story on one runtime; all that it made is removed afterwards."""
    model, changes = MODELS[request.param]
    parts = {name: request.getfixturevalue(name) for name in ("stand", "kubectl", "engine")}
    remove_images(parts["engine"], model)
    place = Story(tmp_path_factory.mktemp(model), model, surroundings, **parts, **changes)
    yield place
    place.end()


def plan_of(log):
    """The plan's action and reasons, from the run's log."""
    action, reasons = re.findall(r"plan: (nothing|gate|cases|manifests|everything): (.*?)(?: \[slipway|\n)", log)[-1]
    return action, reasons.strip()


def test_1_the_first_release_goes_live(story):
    """A first run builds everything, and what serves is what the record says."""
    log, [record] = story.run()
    assert plan_of(log)[0] == "everything"
    assert (record["outcome"], record["version"]) == ("live", 1)
    assert story.live() == {"release": record["release_id"], "version": 1}


def test_2_a_second_run_does_nothing(story):
    """Nothing changed and the live release is healthy: a success without a write to store, cluster, engine or registry."""
    before = story.traces()
    log, records = story.run()
    assert plan_of(log) == ("nothing", "nothing changed, and the live release is healthy")
    assert records == []
    assert story.traces() == before


def nudge(file, tensor):
    """Add 0.01 to the numbers of a tensor in a safetensors file, as a few more steps of training might."""
    data = bytearray(file.read_bytes())
    start = 8 + int.from_bytes(data[:8], "little")
    begin, end = (start + offset for offset in json.loads(data[8:start])[tensor]["data_offsets"])
    numbers = struct.unpack(f"<{(end - begin) // 4}f", data[begin:end])
    data[begin:end] = struct.pack(f"<{len(numbers)}f", *(number + 0.01 for number in numbers))
    file.write_bytes(data)


def test_3_a_changed_checkpoint_is_planned_then_released(story):
    """New content is planned without a write, then released under a larger version."""
    nudge(story.checkpoint / "model.safetensors", "classifier/bias:0")
    before = story.traces()
    log, records = story.run(plan_only=True)
    assert plan_of(log)[0] == "everything"
    assert "the source changed" in plan_of(log)[1]
    assert (records, story.traces()) == ([], before)
    _, [record] = story.run()
    assert (record["outcome"], record["version"]) == ("live", 2)
    assert story.live() == {"release": record["release_id"], "version": 2}


def test_4_a_change_of_manifests_alone_builds_nothing(story):
    """Changed manifests are planned with the API server's diff, then applied with the same image under a new release id."""
    overlay = story.overlay / "deployment.yaml"
    overlay.write_text(overlay.read_text().replace("cpu: 100m", "cpu: 110m"))
    before, serving = story.traces(), story.live()
    log, records = story.run(plan_only=True)
    assert plan_of(log)[0] == "manifests"
    assert re.search(r"plan: -\s+cpu: 100m", log)
    assert re.search(r"plan: \+\s+cpu: 110m", log)
    assert (records, story.traces()) == ([], before)
    log, [record] = story.run()
    assert not [words for words in BUILDS if words in log]
    assert (record["outcome"], record["version"]) == ("live", 2)
    assert story.live() == {"release": record["release_id"], "version": 2}
    assert record["release_id"] != serving["release"]


def test_5_a_checkpoint_that_contradicts_the_model_file_is_refused_before_the_push(story):
    """If the labels are not the promised ones, the export fails; engine, registry and cluster are unchanged."""
    with story.swapped_labels():
        before, serving = story.traces(), story.live()
        log, [record] = story.run(green=False)
    after = story.traces()
    assert "PromiseBroken" in log
    assert (record["outcome"], record["objects"], record["bad"]["task"]) == ("failed", [], "export")
    assert {part: after[part] for part in ("cluster", "engine", "registry")} == {
        part: before[part] for part in ("cluster", "engine", "registry")
    }
    assert story.live() == serving


def test_6_a_release_that_fails_only_in_the_cluster_is_rolled_back(story):
    """Only the gate finds a wrong target port: the run is red; the release before it serves again and has passed its gate."""
    serving = story.live()
    with story.broken_target_port():
        log, records = story.run(green=False)
    failed = next(record for record in records if record["cause"] == "refresh")
    restored = next(record for record in records if record["cause"] == "rollback")
    assert "GateFailed" in log
    assert (failed["outcome"], failed["undo"]["release"]) == ("failed", serving["release"])
    assert (restored["outcome"], restored["release_id"]) == ("live", serving["release"])
    assert restored["verdicts"]["rollback"]["outcome"] == "pass"
    assert story.live() == serving


def test_7_force_does_all_of_it_again(story):
    """A forced run exports and builds again, sends no layer, and meets no conflict."""
    before = story.live()
    log, [record] = story.run(force=True)
    assert plan_of(log) == ("everything", "forced")
    assert [words for words in BUILDS if words in log] == list(BUILDS)
    assert re.search(r"push: 0 layers sent, \d+ were there", log)
    assert (record["outcome"], record["version"]) == ("live", before["version"])
    assert story.live() == {"release": record["release_id"], "version": before["version"]}


def test_8_a_rollback_by_hand_to_the_first(story):
    """The rollback DAG lists the proven releases and rolls back to the first one: its image, manifests and version."""
    first = min((r for r in story.records().values() if r["outcome"] == "live"), key=lambda record: record["opened"])
    log, [record] = story.run(f"rollback_{story.model}", release=first["release_id"])
    assert f"choose: {first['release_id']}  version 1" in log
    assert (record["outcome"], record["cause"], record["release_id"]) == ("live", "rollback", first["release_id"])
    assert story.live() == {"release": first["release_id"], "version": 1}


def test_9_a_release_that_was_never_proven_is_refused(story):
    """A rollback to an unknown release is refused in one line that names the known ones, and changes nothing."""
    before = story.traces()
    log, _ = story.run(f"rollback_{story.model}", green=False, release="0" * 12)
    assert "was never proven live. Next: use one of" in log
    assert story.traces() == before


def test_10_what_exceeds_the_retention_is_pruned(story):
    """Two releases are kept in store, engine and registry, and the older one can be rolled back to; all others are deleted."""
    before = [record for record in story.records().values() if record["outcome"] == "live"]
    live = max(before, key=lambda record: record["opened"])
    file = yaml.safe_load(story.file.read_text())
    story.file.write_text(yaml.safe_dump({**file, "retention": {"releases": 2, "records": 1}}))
    _, [record] = story.run(force=True)
    kept = {live["digest"], record["digest"]}
    gone = {found["digest"] for found in before} - kept
    assert len(gone) == 2
    assert {digest for digest in kept | gone if story.is_held(digest)} == kept
    images = story.engine.images(filters={"label": f"org.opencontainers.image.title={story.model}"})
    assert {known.split("@")[1] for image in images for known in image["RepoDigests"]} == kept
    assert {found["release_id"] for found in story.records().values() if found["outcome"] == "live"} == {
        live["release_id"],
        record["release_id"],
    }
    assert {path.stem.partition("-")[0] for path in story.store.glob(f"manifests/{story.model}/*")} >= {
        live["release_id"],
        record["release_id"],
    }
    _, [back] = story.run(f"rollback_{story.model}")
    assert (back["outcome"], back["release_id"]) == ("live", live["release_id"])
    assert story.live()["release"] == live["release_id"]


def test_11_a_model_file_that_is_gone_leaves_an_orphan(story):
    """Another model's plan names the Deployment and the command that deletes it; after that command it names no orphan."""
    file = yaml.safe_load(story.file.read_text())
    file["target"]["deployment"] = "tfs-heir"
    story.file.rename(story.file.with_name("gone"))
    story.file.with_name("heir.yaml").write_text(yaml.safe_dump(file))
    log, _ = story.run("refresh_heir", plan_only=True)
    found = rf"plan: (deployment/{story.deployment} .*) Next: kubectl (.*?)(?: \[slipway|\n)"
    orphan, command = re.search(found, log).groups()
    assert f"of model {story.model} is an orphan: include/served/{story.model}.yaml is gone" in orphan
    story.kubectl(*command.split())
    assert story.kubectl("get", "deployment,service,hpa,pdb", "-l", f"slipway/model={story.model}", "-o", "name") == ""
    log, _ = story.run("refresh_heir", plan_only=True)
    assert "is an orphan" not in log
