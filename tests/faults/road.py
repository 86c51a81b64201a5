"""One model's road to a cluster, with a project, an Airflow and a store of its own, and all that a fault may leave beside it."""

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
from datetime import datetime
from pathlib import Path
from uuid import uuid4

import yaml
from trial_project import copy_project, remove_images, trial_file
from warm import Warm

RUN_LIMIT_S = 400
WORKER = Path(__file__).parents[1] / "e2e" / "worker.py"
CONTENTS = ("a", "b", "c")
KINDS = "deployment,service,hpa,pdb,configmap,lease"


@dataclass
class Run:
    """What one run of a DAG said and left."""

    green: bool
    log: str
    records: list
    began: float  # Unix time
    seconds: float

    def record(self, cause="refresh"):
        """The one record of a cause."""
        found = [record for record in self.records if record["cause"] == cause]
        assert len(found) == 1, f"{len(found)} records of a {cause}\n{self.log[-4000:]}"
        return found[0]

    def reason(self):
        """The first red verdict's words."""
        return self._red()[1]["reason"]

    def detect_s(self):
        """To the first red verdict, from the first write to the cluster, or from the run's begin where there was none before."""
        red = stamp(self._red()[1]["at"])
        opened = stamp(self.record()["opened"])
        return red - (opened if opened < red else self.began)

    def good_s(self):
        """From the first red verdict to the good release's own gate; nothing where it was never taken away."""
        if not any(record["cause"] == "rollback" for record in self.records):
            return 0.0
        return stamp(self.record("rollback")["closed"]) - stamp(self._red()[1]["at"])

    def _red(self):
        verdicts = self.record()["verdicts"].items()
        red = [(task, said) for task, said in verdicts if said["outcome"] == "fail" and task != "rollback"]
        assert red, f"nothing was red\n{self.log[-4000:]}"
        return min(red, key=lambda found: found[1]["at"])


def stamp(text):
    """A record's time as a Unix time."""
    return datetime.fromisoformat(text).timestamp()


@dataclass
class Road:
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
        """A road on which nothing has gone yet; three contents are there to be released."""
        limits = {"gate__timeout_s": 60}
        file = trial_file(**{"target__deployment": f"tfs-{model}", "source__folder": f"{model}/a", **limits, **changes})
        file |= {"rollout_timeout_s": 300, "address_timeout_s": 30}
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
        road = cls(root, stand, kubectl, engine, environment, model, project, Warm.start(environment))
        road.clear()
        road.airflow("db", "migrate")
        return road

    def end(self):
        """Take away all that the road has made."""
        self.warm.end()
        self.clear()

    def clear(self):
        """Nothing of the model on cluster and engine, also what a run of these tests left that was broken off."""
        self.kubectl("delete", KINDS, "-l", f"slipway/model={self.model}", "--ignore-not-found")
        for container in self.engine.containers(all=True, filters={"name": f"slipway-.*-{self.model}-"}):
            self.engine.remove_container(container["Id"], force=True, v=True)
        remove_images(self.engine, self.model)

    # --- what is to be released ---------------------------------------------------------------------------------------

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
        """Have the next refresh bring this content."""
        self.file.write_text(
            re.sub(rf"folder: {self.model}/.*", f"folder: {self.model}/{letter}", self.file.read_text())
        )

    @contextmanager
    def changed(self, **parts):
        """The model file with other fields (`target__address`, or `schedule`) as long as the block."""
        good = self.file.read_text()
        file = yaml.safe_load(good)
        for dotted, value in parts.items():
            *folders, name = dotted.split("__")
            place = file
            for folder in folders:
                place = place.setdefault(folder, {})
            place[name] = value
        self.file.write_text(yaml.safe_dump(file))
        try:
            yield
        finally:
            self.file.write_text(good)

    @contextmanager
    def container(self, **fields):
        """The overlay with other fields of the container as long as the block."""
        with self.overlay(lambda deployment: deployment["spec"]["template"]["spec"]["containers"][0].update(fields)):
            yield

    @contextmanager
    def overlay(self, change):
        """The overlay's Deployment after `change` as long as the block."""
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
        """An Airflow command; its status and what it said come back."""
        done = self.warm.run("airflow", *words, environment=environment or self.environment, timeout_s=RUN_LIMIT_S)
        assert not check or done.returncode == 0, (done.stdout + done.stderr)[-6000:]
        return done.returncode, done.stdout + done.stderr

    def run(self, dag=None, *, green=True, environment=None, **conf):
        """One run of the refresh DAG, or of another one."""
        before, began = set(self.records()), time.time()
        code, log = self.airflow(
            "dags", "test", dag or self.dag, "-c", json.dumps(conf), check=False, environment=environment
        )
        run = Run(code == 0, log, self.records_since(before), began, time.time() - began)
        red = [said for record in run.records for said in record["verdicts"].items() if said[1]["outcome"] != "pass"]
        assert green is None or run.green is green, (red, log[-3000:])
        return run

    @contextmanager
    def beside(self, dag=None, **conf):
        """A run in a process of its own (a `Beside`) as long as the block; killed if it still goes then."""
        command = [sys.executable, "-m", "airflow", "dags", "test", dag or self.dag, "-c", json.dumps(conf)]
        log = self.root / f"beside-{uuid4().hex[:6]}.log"
        with (
            log.open("w") as said,
            subprocess.Popen(
                command, env=self.environment, stdout=said, stderr=said, start_new_session=True
            ) as process,
        ):
            try:
                yield Beside(self, process, log, set(self.records()))
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)

    def task(self, task_id, *, dag="refresh", facts=None, run_id="test__1", kill_after_s=None, environment=None):
        """One task of a kind of DAG as a worker runs it; with `kill_after_s` its process group is killed so long after its work began.

        What it leaves beside its result, its word and that it had the Lease, is with the facts for the tasks after it.
        """
        place, facts = self.root / "facts.json", self.facts if facts is None else facts
        place.write_text(json.dumps(facts))
        began = self.root / "began"
        began.unlink(missing_ok=True)
        done = self.warm.run(
            WORKER, self.project, self.dag_of(dag), task_id, run_id, place, timeout_s=RUN_LIMIT_S,
            environment={**self.environment, **(environment or {}), "WORKER_BEGAN": str(began)}, began=began, kill_after_s=kill_after_s,
        )  # fmt: skip
        beside = re.findall(r"^(verdict|grpc|lease): (.*)$", done.stdout, re.MULTILINE)
        facts.update({f"{task_id}/{key}": json.loads(value) for key, value in beside})
        return done

    # --- what there is ------------------------------------------------------------------------------------------------

    def records(self):
        """Every record there is, by file name."""
        return {
            path.name: json.loads(path.read_text())
            for path in (self.root / "store" / "records" / self.model).glob("[!.]*.json")
        }

    def records_since(self, before):
        """The records that there are beside those of these names, in the order in which they were opened."""
        new = [found for name, found in self.records().items() if name not in before]
        return sorted(new, key=lambda found: found["opened"])

    def labels(self):
        """What the Deployment says of itself."""
        return self.get(f"deployment/tfs-{self.model}")["metadata"]["labels"]

    def get(self, *words):
        """Objects as the API server has them."""
        return json.loads(self.kubectl("get", *words, "-o", "json"))

    def address(self):
        """The public address, as a URL of the REST port."""
        return f"http://{self.get(f'service/tfs-{self.model}')['status']['loadBalancer']['ingress'][0]['ip']}:8501"

    def asked(self):
        """Address, path and image of a request for the model; None where nothing is served yet."""
        found = self.get("service", "-l", f"slipway/model={self.model}")["items"]
        if not any(one["status"]["loadBalancer"].get("ingress") for one in found):
            return None
        return self.address(), f"/v1/models/{self.model}:predict", self.picture

    @property
    def picture(self):
        """An image of a seven."""
        return self.file.parent / self.model / "golden" / "seven.png"

    def serves(self):
        """The release and version that answer at the public address; the answer has been checked."""
        labels = self.labels()
        picture = base64.urlsafe_b64encode(self.picture.read_bytes()).decode()
        path = f"/v1/models/{self.model}/versions/{labels['slipway/version']}:predict"
        body = json.dumps({"instances": [picture]}).encode()
        with urllib.request.urlopen(f"{self.address()}{path}", body, timeout=20) as answer:
            found = json.load(answer)["predictions"][0]
        assert found["label"] == "7"
        assert found["confidence"] > 0.8
        return {"release": labels["slipway/release"], "version": int(labels["slipway/version"])}

    def has_given_up(self, run, *, words, good):
        """Hold a red run to the promise: it says why, the good release serves as before, and nothing is left of the other."""
        assert run.record()["outcome"] == "failed"
        assert words in run.reason()
        assert self.serves() == good
        assert [found["outcome"] for found in run.records if found["cause"] == "rollback"] in ([], ["live"])
        assert self.debris() == []

    def has_brought(self, run, *, version):
        """Hold a green run to the promise: what the record says is what answers; what serves comes back."""
        record = run.record()
        assert (record["outcome"], record["version"]) == ("live", version)
        assert self.serves() == {"release": record["release_id"], "version": version}
        assert self.debris() == []
        return self.serves()

    def debris(self, *, running=False):
        """What a run may have left behind, one a line; nothing where all is as it should be. One that is `running` holds the Lease."""
        in_cluster = [found for found in self._in_cluster() if not (running and found.startswith("Lease "))]
        return [*self._on_engine(), *self._on_disk(), *in_cluster, *self._running(), *self._half_pushed()]

    def _on_engine(self):
        names = [name for found in self.engine.containers(all=True) for name in found["Names"]]
        return [f"container {name}" for name in names if name.startswith("/slipway-") and f"-{self.model}-" in name]

    def _on_disk(self):
        folders = [
            f"temporary folder {path.name}"
            for path in (self.root / "tmp").iterdir()
            if path.name.startswith("slipway-")
        ]
        drafts = [path for path in (self.root / "store").rglob(".*") if path.is_file()]
        return folders + [f"draft {path.name}" for path in drafts]

    def _in_cluster(self):
        found = self.get(KINDS, "-l", f"slipway/model={self.model}")["items"]
        beside = [one for one in found if one["metadata"]["name"] != f"tfs-{self.model}" and one["kind"] != "Lease"]
        held = [one for one in found if one["kind"] == "Lease" and one["spec"].get("holderIdentity")]
        return [f"{one['kind']} {one['metadata']['name']}" for one in (*beside, *held)]

    def _running(self):
        """Exporters of this road that still run."""
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                words = (place / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(word.startswith(f"{self.project}/include/model".encode()) for word in words):
                found.append(f"process {place.name}")
        return found

    def _half_pushed(self):
        """Tags whose manifest or layers the registry does not have whole."""
        host, prefix = self.stand["registry"].split("/", 1)
        api = f"http://{host}/v2/{prefix}/{self.model}"
        kinds = "application/vnd.docker.distribution.manifest.v2+json"
        try:
            tags = read_json(f"{api}/tags/list")["tags"] or []
        except urllib.error.HTTPError:
            return []
        wanted = {}
        for tag in tags:
            manifest = read_json(f"{api}/manifests/{tag}", Accept=kinds)
            wanted |= {part["digest"]: part["size"] for part in (manifest["config"], *manifest["layers"])}
        sizes = {digest: blob_size(f"{api}/blobs/{digest}") for digest in wanted}
        return [f"blob {digest}" for digest, size in wanted.items() if sizes[digest] != size]


@dataclass
class Beside:
    """A run that goes on beside the test."""

    road: Road
    process: subprocess.Popen
    log: Path
    before: set
    began: float = field(default_factory=time.time)  # Unix time

    def says(self, words, *, seconds=150):
        """Wait until its log has these words."""
        eventually(lambda: words in self.log.read_text(), seconds=seconds, what=words)

    def ends(self, *, green=True, seconds=300):
        """What it was, once it has ended."""
        code = self.process.wait(timeout=seconds)
        log = self.log.read_text()
        assert (code == 0) is green, log[-5000:]
        return Run(green, log, self.road.records_since(self.before), self.began, time.time() - self.began)


def read_json(url, **headers):
    """What is at a URL."""
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
        return json.load(answer)


def blob_size(url):
    """How large the registry says that a blob is; None where it has none."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20) as answer:
            return int(answer.headers["Content-Length"])
    except urllib.error.HTTPError:
        return None


def change_weights(file, factor):
    """Multiply the last tensor's first number in a safetensors file: other content, and as good as the same answers."""
    data = bytearray(file.read_bytes())
    head = struct.unpack_from("<Q", data)[0]
    tensors = json.loads(data[8 : 8 + head])
    name = next(found for found in tensors if found.startswith("classifier"))
    place = 8 + head + tensors[name]["data_offsets"][0]
    struct.pack_into("<f", data, place, struct.unpack_from("<f", data, place)[0] * factor)
    file.write_bytes(data)


def eventually(fact, *, seconds, what):
    """What `fact()` gives once it gives something."""
    end_s = time.monotonic() + seconds
    while not (found := fact()):
        assert time.monotonic() < end_s, f"{what}: not within {seconds} s"
        time.sleep(0.2)
    return found
