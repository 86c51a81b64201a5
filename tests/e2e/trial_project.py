"""A copy of the project with one more model file, for tests that must not touch the shipped ones."""

import shutil
from pathlib import Path

import yaml

PROJECT = Path(__file__).parents[2]


def copy_project(place, model, model_file, *, beside=None):
    """The parts of the project that a worker has, with one more model file, and a folder of the model's name beside it."""
    for part in ("dags", "plugins", "include"):
        shutil.copytree(PROJECT / part, place / part, ignore=shutil.ignore_patterns("__pycache__", "faults-*"))
    (place / "include" / "served" / f"{model}.yaml").write_text(yaml.safe_dump(model_file))
    if beside:
        shutil.copytree(beside, place / "include" / "served" / model)
    return place


def trial_file(**changes):
    """The shipped model file under a Deployment of its own, without a preview: most tests are about something else."""
    file = yaml.safe_load((PROJECT / "include" / "served" / "digits-vit.yaml").read_text())
    file["target"] |= {"deployment": "tfs-trial", "strategy": "rolling"}
    for dotted, value in changes.items():
        part, field = dotted.split("__")
        file.setdefault(part, {})[field] = value
    return file


def remove_images(engine, model):
    """Remove every image of a model from the engine."""
    for found in engine.images(filters={"label": f"org.opencontainers.image.title={model}"}):
        engine.remove_image(found["Id"], force=True)
