"""A checkpoint of another shape goes from a folder to a gated release with one model file and no code."""

import base64
import json
import os
import subprocess
import urllib.request
from pathlib import Path

import pytest
from trial_project import PROJECT, remove_images
from workers import TASKS, Workers

from slipway.records.store import read_json

pytestmark = [pytest.mark.stand, pytest.mark.alongside, pytest.mark.model, pytest.mark.slow]

MODEL = "shape"


@pytest.fixture(scope="module")
def checkpoint(model_python, tmp_path_factory):
    """A folder with the checkpoint and the picture, and 🤗's own answer to it."""
    root = tmp_path_factory.mktemp("shape")
    settings = {
        "PYTHONPATH": str(PROJECT / "include" / "model"),
        "TF_USE_LEGACY_KERAS": "1",
        "CUDA_VISIBLE_DEVICES": "-1",
    }
    program = Path(__file__).with_name("other_shape.py")
    done = subprocess.run(
        [model_python, program, root], capture_output=True, text=True, check=False, env={**os.environ, **settings}
    )
    assert done.returncode == 0, done.stderr
    return root, json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def released(checkpoint, tmp_path_factory, surroundings, kubectl, engine):
    """The facts of a whole refresh, whose graph marks bad images; removed afterwards."""
    root, answer = checkpoint
    golden = {"name": "side", "image": f"{MODEL}/side.jpg", "label": answer["label"]}
    model_file = {
        "source": {"folder": f"{MODEL}/checkpoint"},
        "export": {"top_k": 3, "max_side": 1000, "on_bad_image": "mark"},
        "gate": {"golden": [{**golden, "min_confidence": round(answer["confidence"] - 0.01, 3)}], "passes": 2},
        "target": {"deployment": "tfs-shape", "overlay": "local", "strategy": "rolling"},
    }
    remove_images(engine, MODEL)
    workers = Workers(tmp_path_factory.mktemp("workers"), surroundings, MODEL, model_file, beside=root)
    for task_id in TASKS:
        workers.run(task_id)
    yield workers.facts
    workers.warm.end()
    kubectl("delete", "deployment,service,hpa,pdb,configmap,lease", "-l", f"slipway/model={MODEL}", "--wait=false")
    remove_images(engine, MODEL)


def ask(facts, signature, *files):
    """What the public address answers to these files as they are."""
    instances = [{"b64": base64.b64encode(data).decode()} for data in files]
    body = json.dumps({"signature_name": signature, "instances": instances}).encode()
    url = f"{facts['wait_for_address'].rstrip('/')}/v1/models/{MODEL}:predict"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=600) as response:
        return json.loads(response.read())["predictions"]


def test_it_is_live_and_gated(released):
    """The gate's rounds passed, with a label that is not ASCII and a picture that EXIF turns."""
    assert "2 of 2 rounds in a row passed" in released["gate"]


def test_every_signature_answers(released, checkpoint):
    """Raw bytes give 🤗's own label and confidence; top_k has as many as the model file says; a bad image is marked."""
    root, answer = checkpoint
    picture = (root / "side.jpg").read_bytes()
    raw, marked = ask(released, "raw_bytes", picture, b"no image")
    assert raw == {"label": answer["label"], "confidence": pytest.approx(answer["confidence"], abs=1e-4)}
    assert marked == {"label": "!bad image: is no JPEG, PNG, GIF, BMP or WebP image", "confidence": 0.0}
    [best] = ask(released, "top_k", picture)
    assert best["labels"][0] == answer["label"]
    assert (len(best["labels"]), best["scores"]) == (3, sorted(best["scores"], reverse=True))


def test_card_says_what_it_is(released, engine):
    """Card, record's export and image agree on the parity; the card knows the source and its revision."""
    card = released["export"]["card"]
    said = read_json(card["uri"].replace("README.md", "card.json"))
    assert said["source"]["revision"] == released["resolve"]["source"]["revision"]
    assert (said["labels"], said["settings"]["top_k"], said["parity"]["largest_levels"]) == (7, 3, 0)
    labels = engine.inspect_image(released["build_image"]["image_id"])["Config"]["Labels"]
    assert (labels["slipway.card"], labels["slipway.parity"]) == (card["digest"], card["parity"])
