"""Models with random weights, taken through a whole refresh task by task on workers of their own."""

import json
import os
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trial_project import PROJECT, remove_images
from workers import TASKS, Workers

PROGRAM = Path(__file__).with_name("untrained_checkpoint.py")


@dataclass(frozen=True)
class Untrained:
    """A checkpoint in a folder, and 🤗's own answer to its golden image."""

    folder: Path
    label: str
    confidence: float

    @classmethod
    def make(cls, model_python, shape, folder):
        """Make a checkpoint of this shape in the folder."""
        settings = {
            "PYTHONPATH": str(PROJECT / "include" / "model"),
            "TF_USE_LEGACY_KERAS": "1",
            "CUDA_VISIBLE_DEVICES": "-1",
        }
        done = subprocess.run(
            [model_python, PROGRAM, shape, folder],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **settings},
        )
        assert done.returncode == 0, done.stderr
        return cls(folder, **json.loads(done.stdout.splitlines()[-1]))

    def model_file(self, model, *, overlay, **export):
        """A model file whose gate promises 🤗's own answer."""
        golden = {"name": "side", "image": f"{model}/side.jpg", "label": self.label}
        return {
            "source": {"folder": f"{model}/checkpoint"},
            "export": export,
            "gate": {"golden": [{**golden, "min_confidence": round(self.confidence - 0.01, 3)}], "passes": 2},
            "target": {"deployment": f"tfs-{model}", "overlay": overlay, "strategy": "rolling"},
        }

    @property
    def image(self):
        """The golden image's bytes."""
        return (self.folder / "side.jpg").read_bytes()


@contextmanager
def refreshed_by_workers(root, surroundings, kubectl, engine, *, model, model_file, **more):
    """Workers that have run each task of a refresh; what they made is removed after the block."""
    remove_images(engine, model)
    workers = Workers(root, surroundings, model, model_file, **more)
    try:
        for task_id in TASKS:
            workers.run(task_id)
        yield workers
    finally:
        workers.warm.end()
        kubectl("delete", "deployment,service,hpa,pdb,configmap,lease", "-l", f"slipway/model={model}", "--wait=false")
        remove_images(engine, model)
