"""The story of one model on the real stand, from its first release to a rollback by hand, checked after every step.

Each step is one run of a DAG (`airflow dags test`: the real operators, sensors and triggers in one process, on a database of its
own) against the real engine, registry and cluster. The tests of this module are chapters: each goes on where the one before ended.
"""

import base64
import json
import re
import subprocess
import sys
import urllib.request

import pytest
import yaml
from trial_project import copy_project, remove_images, trial_file

MODEL = "story"
RUN_LIMIT_S = 400
BUILDS = ("exporter:", "smoke test:", "push: ")  # what a run that builds says in its log

pytestmark = pytest.mark.stand


class Story:
    """A project, an Airflow and an artifact store of its own; a release goes through them again and again."""

    def __init__(self, root, surroundings, kubectl, engine):
        self.root, self.kubectl, self.engine = root, kubectl, engine
        file = trial_file(target__deployment="tfs-story", source__folder="story/checkpoint", gate__timeout_s=10)
        self.project = copy_project(root / "project", MODEL, file)
        served = self.project / "include" / "served"
        (served / "digits-vit").rename(served / "story")
        (served / "digits-vit.yaml").unlink()
        self.file = served / f"{MODEL}.yaml"
        self.file.write_text(self.file.read_text().replace("digits-vit/golden", "story/golden"))
        self.checkpoint = served / "story" / "checkpoint"
        self.overlay = self.project / "include" / "manifests" / "overlays" / "local"
        self.store = root / "store"
        self.environment = {
            **surroundings, "AIRFLOW_HOME": str(root / "airflow"), "AIRFLOW_VAR_SLIPWAY_STORE": f"file://{self.store}",
            "AIRFLOW__CORE__DAGS_FOLDER": str(self.project / "dags"), "AIRFLOW__CORE__PLUGINS_FOLDER": str(self.project / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root}/airflow.db",
        }  # fmt: skip
        self.environment.pop("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC", None)
        self.airflow("db", "migrate")

    def airflow(self, *words, check=True):
        """An Airflow command; what it said comes back."""
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *words], env=self.environment, check=False, capture_output=True, text=True,
            timeout=RUN_LIMIT_S,
        )  # fmt: skip
        assert not check or done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.returncode, done.stdout + done.stderr

    def run(self, dag="refresh_story", *, green=True, **conf):
        """One run; its log comes back, and its record where it left one."""
        before = set(self.records())
        code, log = self.airflow("dags", "test", dag, "-c", json.dumps(conf), check=False)
        assert (code == 0) is green, log[-6000:]
        new = [record for name, record in self.records().items() if name not in before]
        return log, sorted(new, key=lambda record: record["opened"])

    def records(self):
        """Every record there is, by file name."""
        return {path.name: json.loads(path.read_text()) for path in self.store.glob("records/story/*.json")}

    def live(self):
        """The Deployment's labels, and whether three independent clients agree on what serves."""
        labels = json.loads(self.kubectl("get", "deployment/tfs-story", "-o", "json"))["metadata"]["labels"]
        service = json.loads(self.kubectl("get", "service/tfs-story", "-o", "json"))
        address = service["status"]["loadBalancer"]["ingress"][0]["ip"]
        assert "successfully rolled out" in self.kubectl("rollout", "status", "deployment/tfs-story", "--timeout=30s")
        image = base64.urlsafe_b64encode((self.file.parent / "story" / "golden" / "seven.png").read_bytes()).decode()
        body = json.dumps({"signature_name": "serving_default", "instances": [image]})
        path = f"/v1/models/story/versions/{labels['slipway/version']}:predict"
        answer = json.load(urllib.request.urlopen(f"http://{address}:8501{path}", body.encode(), timeout=20))
        assert answer["predictions"][0]["label"] == "7"
        return {"release": labels["slipway/release"], "version": int(labels["slipway/version"])}

    def traces(self):
        """All that a run could have written: store, cluster, engine and registry."""
        objects = json.loads(
            self.kubectl("get", "deployment,service,hpa,pdb", "-l", "slipway/model=story", "-o", "json")
        )
        return {
            "store": {str(path): path.stat().st_mtime_ns for path in self.store.rglob("*") if path.is_file()},
            "cluster": {item["kind"]: item["metadata"].get("managedFields", [{}])[0] for item in objects["items"]}
            | {item["kind"] + " generation": item["metadata"].get("generation") for item in objects["items"]},
            "engine": sorted(
                image["Id"]
                for image in self.engine.images(filters={"label": f"org.opencontainers.image.title={MODEL}"})
            ),
            "registry": self.registry(),
        }

    def registry(self):
        """The tags that the registry holds of the model's image."""
        host, prefix = self.environment["AIRFLOW_VAR_SLIPWAY_REGISTRY"].split("/", 1)
        url = f"http://{host}/v2/{prefix}/{MODEL}/tags/list"
        return sorted(json.load(urllib.request.urlopen(url, timeout=20))["tags"])


@pytest.fixture(scope="module")
def story(tmp_path_factory, surroundings, kubectl, engine):
    """The story's place; all that it made is removed afterwards."""
    remove_images(engine, MODEL)
    place = Story(tmp_path_factory.mktemp("story"), surroundings, kubectl, engine)
    yield place
    kubectl("delete", "deployment,service,hpa,pdb", "-l", f"slipway/model={MODEL}", "--wait=false")
    remove_images(engine, MODEL)


def plan_of(log):
    """What the run planned, as its log says."""
    action, reasons = re.findall(r"plan: (nothing|manifests|everything): (.*?)(?: \[slipway|\n)", log)[-1]
    return action, reasons.strip()


def test_1_the_first_release_goes_live(story):
    """A first run builds everything, and what serves is what the record says."""
    log, [record] = story.run()
    assert plan_of(log)[0] == "everything"
    assert (record["outcome"], record["version"]) == ("live", 1)
    assert story.live() == {"release": record["release_id"], "version": 1}


def test_2_a_second_run_does_nothing(story):
    """Nothing changed and the live release is well: a success without a write to store, cluster, engine or registry."""
    before = story.traces()
    log, records = story.run()
    assert plan_of(log) == ("nothing", "nothing changed, and the live release is well")
    assert records == []
    assert story.traces() == before


def test_3_a_retrained_checkpoint_is_planned_then_released(story, stand):
    """New content is planned without a write, then released under a larger version."""
    train = [stand["exporter_python"], str(story.project / "include" / "model" / "train_digits.py")]
    subprocess.run(
        [*train, "--out", str(story.checkpoint.parent), "--epochs", "25"], check=True, capture_output=True, timeout=300
    )
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
    """Labels that are not the promised ones end the run in the exporter; registry and cluster are untouched."""
    config = story.checkpoint / "config.json"
    good = config.read_text()
    labels = json.loads(good)
    labels["id2label"] = {**labels["id2label"], "3": "8", "8": "3"}
    config.write_text(json.dumps(labels))
    before, serving = story.traces(), story.live()
    log, [record] = story.run(green=False)
    config.write_text(good)
    after = story.traces()
    assert "ExportError" in log
    assert (record["outcome"], record["objects"]) == ("failed", [])
    assert {part: after[part] for part in ("cluster", "engine", "registry")} == {
        part: before[part] for part in ("cluster", "engine", "registry")
    }
    assert story.live() == serving


def test_6_a_release_that_fails_only_in_the_cluster_is_undone(story):
    """A wrong target port is found by the gate alone: the run is red, and the release before it serves again, re-gated."""
    overlay = story.overlay / "kustomization.yaml"
    good, serving = overlay.read_text(), story.live()
    patch = [{"op": "replace", "path": "/spec/ports/1/targetPort", "value": 8599}]
    broken = yaml.safe_load(good)
    broken["patches"].append({"target": {"kind": "Service"}, "patch": yaml.safe_dump(patch)})
    overlay.write_text(yaml.safe_dump(broken))
    log, records = story.run(green=False)
    overlay.write_text(good)
    failed = next(record for record in records if record["cause"] == "refresh")
    undone = next(record for record in records if record["cause"] == "rollback")
    assert "GateFailed" in log
    assert (failed["outcome"], failed["undo"]["release"]) == ("failed", serving["release"])
    assert (undone["outcome"], undone["release_id"]) == ("live", serving["release"])
    assert undone["verdicts"]["rollback"]["outcome"] == "pass"
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
    """The rollback DAG lists the proven releases and brings the first one back: its image, manifests and version."""
    first = min((r for r in story.records().values() if r["outcome"] == "live"), key=lambda record: record["opened"])
    log, [record] = story.run("rollback_story", release=first["release_id"])
    assert f"choose: {first['release_id']}  version 1" in log
    assert (record["outcome"], record["cause"], record["release_id"]) == ("live", "rollback", first["release_id"])
    assert story.live() == {"release": first["release_id"], "version": 1}


def test_9_a_release_that_was_never_proven_is_refused(story):
    """A rollback to an unknown release is refused in one line that names the known ones, and changes nothing."""
    before = story.traces()
    log, _ = story.run("rollback_story", green=False, release="0" * 12)
    assert "was never proven live. Next: use one of" in log
    assert story.traces() == before
