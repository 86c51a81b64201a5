"""A copy of the project with one more model file, for tests that must not touch the shipped ones."""

import shutil
from pathlib import Path

import yaml

from slipway.facts import from_dict, to_dict
from slipway.release import Release
from slipway.steps.rendering import render_release

PROJECT = Path(__file__).parents[2]


def copy_project(place, model, model_file, *, files=None, overlays=None):
    """Copy the parts of the project that a worker has, with one more model file and more overlays: kustomizations by name.

    `files` become the model's folder.
    """
    for part in ("dags", "plugins", "include"):
        shutil.copytree(PROJECT / part, place / part, ignore=shutil.ignore_patterns("__pycache__", "faults-*"))
    (place / "include" / "served" / f"{model}.yaml").write_text(yaml.safe_dump(model_file))
    for name, kustomization in (overlays or {}).items():
        overlay = place / "include" / "manifests" / "overlays" / name
        overlay.mkdir()
        (overlay / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    if files:
        shutil.copytree(files, place / "include" / "served" / model)
    return place


def overlay_with_resources(base, resources):
    """A kustomization: another overlay, whose container has these resources."""
    patch = [{"op": "replace", "path": "/spec/template/spec/containers/0/resources", "value": resources}]
    return {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": [f"../{base}"],
        "patches": [{"target": {"kind": "Deployment"}, "patch": yaml.safe_dump(patch)}],
    }


def trial_file(**changes):
    """The shipped model file with another Deployment, and without the preview and the load test, which most tests do not need.

    `changes` are by field: `schedule`, or `gate__passes` of a part.
    """
    file = yaml.safe_load((PROJECT / "include" / "served" / "digits-vit.yaml").read_text())
    file.pop("load_test")
    file["target"] |= {"deployment": "tfs-trial", "strategy": "rolling"}
    for dotted, value in changes.items():
        *parts, field = dotted.split("__")
        place = file
        for part in parts:
            place = place.setdefault(part, {})
        place[field] = value
    return file


def rendered_again(resolved, **changes):
    """The fact of `resolve` with these changes, and its manifests rendered and kept again, as `resolve` does."""
    return to_dict(render_release(from_dict(Release, {**resolved, **changes})))


def remove_images(engine, model):
    """Remove every image of a model from the engine."""
    for found in engine.images(filters={"label": f"org.opencontainers.image.title={model}"}):
        engine.remove_image(found["Id"], force=True)
