"""Refreshes of one model, with a project, an Airflow and a store of its own, and checks of what they leave."""

import base64
import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import yaml
from debris import KINDS, find_debris
from refresh_runs import BackgroundRun, FinishedRun
from trial_project import copy_project, remove_images, trial_file
from warm import Warm

RUN_LIMIT_S = 900  # of one command; a test waits for events, never for this
WORKER = Path(__file__).parents[1] / "e2e" / "worker.py"
CONTENTS = ("a", "b", "c")


@dataclass
class RefreshHarness:
    """Everything that one model's refreshes need, and can leave behind."""

    root: Path
    stand: dict
    kubectl: object
    engine: object
    environment: dict
    model: str
    project: Path
    warm: Warm
    facts: dict = field(default_factory=lambda: {"params": {}})

    @classmethod
    def make(cls, root, surroundings, stand, kubectl, engine, *, model, **changes):
        """A harness without any release yet, and three contents that can be released.

        One round is enough for the gate, unless a test sets `gate__passes`: the gate of a rollback asks once in 4 s.
        """
        own = {"target__deployment": f"tfs-{model}", "source__folder": f"{model}/a", "gate__passes": 1}
        file = trial_file(**{**own, **changes}) | {"rollout_timeout_s": 300}
        project = copy_project(root / "project", model, file)
        served = project / "include" / "served"
        for number, content in enumerate(CONTENTS):
            shutil.copytree(served / "digits-vit" / "checkpoint", served / model / content)
            change_weights(served / model / content / "model.safetensors", 1 + number / 500)
        shutil.copytree(served / "digits-vit" / "golden", served / model / "golden")
        (served / "digits-vit.yaml").unlink()
        text = (served / f"{model}.yaml").read_text()
        (served / f"{model}.yaml").write_text(text.replace("digits-vit/golden", f"{model}/golden"))
        (root / "tmp").mkdir()
        environment = {
            **surroundings, "AIRFLOW_HOME": str(root / "airflow"), "TMPDIR": str(root / "tmp"),
            "AIRFLOW_VAR_SLIPWAY_STORE": f"file://{root}/store", "AIRFLOW__CORE__DAGS_FOLDER": str(project / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(project / "plugins"),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root}/airflow.db",
        }  # fmt: skip
        environment.pop("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC", None)
        harness = cls(root, stand, kubectl, engine, environment, model, project, Warm.start(environment))
        harness.clear()
        harness.airflow("db", "migrate")
        return harness

    def end(self):
        """Remove all that the harness has made."""
        self.warm.end()
        self.clear()

    def clear(self):
        """Remove the model from cluster and engine, also what an interrupted test run has left."""
        self.kubectl("delete", KINDS, "-l", f"slipway/model={self.model}", "--ignore-not-found")
        for container in self.engine.containers(all=True, filters={"name": f"slipway-.*-{self.model}-"}):
            self.engine.remove_container(container["Id"], force=True, v=True)
        remove_images(self.engine, self.model)

    # --- what is released ---------------------------------------------------------------------------------------------

    @property
    def dag(self):
        """The refresh DAG's id."""
        return self.dag_of("refresh")

    def dag_of(self, kind):
        """The id of the model's DAG of a kind: `refresh`, `rollback` or `teardown`."""
        return f"{kind}_{self.model.replace('-', '_')}"

    @property
    def file(self):
        """The model file."""
        return self.project / "include" / "served" / f"{self.model}.yaml"

    def content(self, letter):
        """Make the next refresh release this content."""
        self.file.write_text(
            re.sub(rf"folder: {self.model}/.*", f"folder: {self.model}/{letter}", self.file.read_text())
        )

    @contextmanager
    def changed(self, **fields):
        """Change fields of the model file (`target__address`, or `schedule`) for the block."""
        good = self.file.read_text()
        file = yaml.safe_load(good)
        for dotted, value in fields.items():
            *parents, name = dotted.split("__")
            place = file
            for parent in parents:
                place = place.setdefault(parent, {})
            place[name] = value
        self.file.write_text(yaml.safe_dump(file))
        try:
            yield
        finally:
            self.file.write_text(good)

    @contextmanager
    def container(self, **fields):
        """Change fields of the overlay's container for the block."""
        with self.overlay(lambda deployment: deployment["spec"]["template"]["spec"]["containers"][0].update(fields)):
            yield

    @contextmanager
    def overlay(self, change):
        """Apply `change` to the overlay's Deployment for the block."""
        place = self.project / "include" / "manifests" / "overlays" / "local" / "deployment.yaml"
        good = place.read_text()
        deployment = yaml.safe_load(good)
        change(deployment)
        place.write_text(yaml.safe_dump(deployment))
        try:
            yield
        finally:
            place.write_text(good)

    # --- runs ---------------------------------------------------------------------------------------------------------

    def airflow(self, *words, check=True, environment=None):
        """Run an Airflow command: its status and its output."""
        done = self.warm.run("airflow", *words, environment=environment or self.environment, timeout_s=RUN_LIMIT_S)
        assert not check or done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.returncode, done.stdout + done.stderr

    def run(self, dag=None, *, green=True, environment=None, **conf):
        """Run the refresh DAG, or another one, to its end; `green` None accepts a red run too."""
        before, began = set(self.records()), time.time()
        code, log = self.airflow(
            "dags", "test", dag or self.dag, "-c", json.dumps(conf), check=False, environment=environment
        )
        run = FinishedRun(code == 0, log, self.records_since(before), began, time.time() - began)
        verdicts = [item for record in run.records for item in record["verdicts"].items()]
        red = [(task, verdict) for task, verdict in verdicts if verdict["outcome"] != "pass"]
        assert green is None or run.green is green, (red, log[-3000:])
        return run

    @contextmanager
    def in_background(self, dag=None, **conf):
        """A BackgroundRun for the block; if it still goes on then, it is killed."""
        command = [sys.executable, "-m", "airflow", "dags", "test", dag or self.dag, "-c", json.dumps(conf)]
        log = self.root / f"background-{uuid4().hex[:6]}.log"
        with (
            log.open("w") as output,
            subprocess.Popen(
                command, env=self.environment, stdout=output, stderr=output, start_new_session=True
            ) as process,
        ):
            try:
                yield BackgroundRun(self, process, log, set(self.records()))
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def task(self, task_id, *, dag="refresh", facts=None, run_id="test__1", kill_after_s=None, environment=None):
        """Run one task of a DAG as a worker does.

        With `kill_after_s`, its process group is killed that long after its work began. What the task leaves in XCom next
        to its result (verdict, gRPC address, Lease) is added to the facts, for the tasks that follow.
        """
        place, facts = self.root / "facts.json", self.facts if facts is None else facts
        place.write_text(json.dumps(facts))
        began = self.root / "began"
        began.unlink(missing_ok=True)
        done = self.warm.run(
            WORKER, self.project, self.dag_of(dag), task_id, run_id, place, timeout_s=RUN_LIMIT_S,
            environment={**self.environment, **(environment or {}), "WORKER_BEGAN": str(began)}, began=began, kill_after_s=kill_after_s,
        )  # fmt: skip
        others = re.findall(r"^(verdict|grpc|lease): (.*)$", done.stdout, re.MULTILINE)
        facts.update({f"{task_id}/{key}": json.loads(value) for key, value in others})
        return done

    # --- what there is ------------------------------------------------------------------------------------------------

    def records(self):
        """Every record, by file name."""
        return {
            path.name: json.loads(path.read_text())
            for path in (self.root / "store" / "records" / self.model).glob("[!.]*.json")
        }

    def records_since(self, before):
        """The records that are new since those with these names, the oldest first."""
        new = [found for name, found in self.records().items() if name not in before]
        return sorted(new, key=lambda found: found["opened"])

    def labels(self):
        """The Deployment's labels."""
        return self.get(f"deployment/tfs-{self.model}")["metadata"]["labels"]

    def get(self, *words):
        """Objects from the API server."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def address(self):
        """The public address, as a URL of the REST port."""
        return f"http://{self.get(f'service/tfs-{self.model}')['status']['loadBalancer']['ingress'][0]['ip']}:8501"

    def load_target(self):
        """Address, path and image for requests to the model; None if nothing is served yet."""
        found = self.get("service", "-l", f"slipway/model={self.model}")["items"]
        if not any(one["status"]["loadBalancer"].get("ingress") for one in found):
            return None
        return self.address(), f"/v1/models/{self.model}:predict", self.picture

    @property
    def picture(self):
        """An image of a seven."""
        return self.file.parent / self.model / "golden" / "seven.png"

    def serves(self):
        """The release and version that answer at the public address; the answer is checked too."""
        labels = self.labels()
        picture = base64.urlsafe_b64encode(self.picture.read_bytes()).decode()
        path = f"/v1/models/{self.model}/versions/{labels['slipway/version']}:predict"
        body = json.dumps({"instances": [picture]}).encode()
        with urllib.request.urlopen(f"{self.address()}{path}", body, timeout=20) as answer:
            found = json.load(answer)["predictions"][0]
        assert found["label"] == "7"
        assert found["confidence"] > 0.8
        return {"release": labels["slipway/release"], "version": int(labels["slipway/version"])}

    def assert_given_up(self, run, *, words, good):
        """A red run names its reason, the good release serves as before, and nothing of the bad one is left."""
        assert run.record()["outcome"] == "failed"
        assert words in run.reason()
        assert self.serves() == good
        assert [found["outcome"] for found in run.records if found["cause"] == "rollback"] in ([], ["live"])
        assert self.debris() == []

    def assert_live(self, run, *, version):
        """A green run's record names what answers at the public address, and nothing is left over. Returns what serves."""
        record = run.record()
        assert (record["outcome"], record["version"]) == ("live", version)
        assert self.serves() == {"release": record["release_id"], "version": version}
        assert self.debris() == []
        return self.serves()

    def debris(self, *, running=False):
        """What runs have left behind, one a line. A run that is still `running` may hold the Lease."""
        return find_debris(self, running=running)


def change_weights(file, factor):
    """Multiply one number of the classifier in a safetensors file: new content whose answers are practically the same."""
    data = bytearray(file.read_bytes())
    head = struct.unpack_from("<Q", data)[0]
    tensors = json.loads(data[8 : 8 + head])
    name = next(found for found in tensors if found.startswith("classifier"))
    place = 8 + head + tensors[name]["data_offsets"][0]
    struct.pack_into("<f", data, place, struct.unpack_from("<f", data, place)[0] * factor)
    file.write_bytes(data)
