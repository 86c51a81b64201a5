"""A refresh task by task, each on a worker of its own."""

import json
import re
import shutil
import time
from pathlib import Path

from trial_project import copy_project
from warm import Warm

WORKER = Path(__file__).with_name("worker.py")
TASKS = [
    "resolve",
    "plan",
    "export",
    "build_image",
    "smoke_test",
    "push",
    "apply",
    "wait_for_rollout",
    "wait_for_address",
    "gate",
]
TASK_LIMIT_S = 3600


class Workers:
    """Gives each task a checkout, a home and a temporary folder that no other task has, and keeps the facts."""

    def __init__(self, root, surroundings, model, model_file, **more):
        self.root, self.model, self.model_file = root, model, model_file
        self.more = more  # files and overlays of its project
        self.environment = {**surroundings, "AIRFLOW_VAR_SLIPWAY_STORE": f"file://{root}/store"}
        self.facts = {"params": {}}
        self.spent = {}  # seconds and MiB, by task
        self.warm = Warm.start({**self.environment, "AIRFLOW_HOME": f"{root}/airflow"})

    def run(self, task_id, *, check=True, facts=None, store=None):
        """Run a task on a new worker, which may have another store; the finished process. With `check`, the result becomes a fact."""
        home = Path(self.root) / f"worker-{len(list(Path(self.root).glob('worker-*')))}-{task_id}"
        (home / "tmp").mkdir(parents=True)
        project = copy_project(home / "project", self.model, self.model_file, **self.more)
        (home / "facts.json").write_text(json.dumps(facts or self.facts))
        own = {"HOME": str(home), "TMPDIR": str(home / "tmp"), "AIRFLOW_HOME": str(home / "airflow")}
        own |= {"AIRFLOW_VAR_SLIPWAY_STORE": store} if store else {}
        began_s = time.monotonic()
        done = self.warm.run(
            WORKER, project, f"refresh_{self.model}", task_id, "test__1", home / "facts.json",
            environment={**self.environment, **own}, directory=home, timeout_s=TASK_LIMIT_S,
        )  # fmt: skip
        self.spent[task_id] = (time.monotonic() - began_s, done.peak_mib)
        leftovers = [path.name for path in (home / "tmp").iterdir() if path.name.startswith("slipway")]
        shutil.rmtree(home)
        assert leftovers == [], "a task left files in its temporary folder"
        if check:
            assert done.returncode == 0, f"{task_id}: {done.stdout[-3000:]}{done.stderr[-3000:]}"
            *pushed, result = done.stdout.splitlines()
            self.facts[task_id] = json.loads(result)
            for key, value in re.findall(r"^(verdict|grpc): (.*)$", "\n".join(pushed), re.MULTILINE):
                self.facts[f"{task_id}/{key}"] = json.loads(value)
        return done
