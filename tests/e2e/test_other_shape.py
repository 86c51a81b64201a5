"""A checkpoint of another shape goes from a folder to a gated release with one model file and no code."""

import base64
import json
import urllib.request

import pytest
from untrained import Untrained, refreshed_by_workers

from slipway.records.store import read_json

pytestmark = [pytest.mark.stand, pytest.mark.alongside, pytest.mark.model, pytest.mark.slow]

MODEL = "shape"


@pytest.fixture(scope="module")
def checkpoint(model_python, tmp_path_factory):
    """A checkpoint of an odd shape: 48 pixels, 7 labels, another normalization."""
    return Untrained.make(model_python, "odd", tmp_path_factory.mktemp("shape"))


@pytest.fixture(scope="module")
def released(checkpoint, tmp_path_factory, surroundings, kubectl, engine):
    """The facts of a whole refresh whose graph marks bad images."""
    model_file = checkpoint.model_file(MODEL, overlay="local", top_k=3, max_side=1000, on_bad_image="mark")
    root, own = tmp_path_factory.mktemp("workers"), {"model": MODEL, "model_file": model_file}
    with refreshed_by_workers(root, surroundings, kubectl, engine, files=checkpoint.folder, **own) as workers:
        yield workers.facts


def ask(facts, signature, *files):
    """The predictions of the public address for these files, sent unchanged."""
    instances = [{"b64": base64.b64encode(data).decode()} for data in files]
    body = json.dumps({"signature_name": signature, "instances": instances}).encode()
    url = f"{facts['wait_for_address'].rstrip('/')}/v1/models/{MODEL}:predict"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=600) as response:
        return json.loads(response.read())["predictions"]


def test_it_is_live_and_gated(released):
    """The gate passed, with a label that is not ASCII and an image that EXIF rotates."""
    assert "2 of 2 rounds in a row passed" in released["gate"]


def test_every_signature_answers(released, checkpoint):
    """Raw bytes get 🤗's own label and confidence; top_k has as many labels as the model file says; a bad image is marked."""
    raw, marked = ask(released, "raw_bytes", checkpoint.image, b"no image")
    assert raw == {"label": checkpoint.label, "confidence": pytest.approx(checkpoint.confidence, abs=1e-4)}
    assert marked == {"label": "!bad image: is no JPEG, PNG, GIF, BMP or WebP image", "confidence": 0.0}
    [best] = ask(released, "top_k", checkpoint.image)
    assert best["labels"][0] == checkpoint.label
    assert (len(best["labels"]), best["scores"]) == (3, sorted(best["scores"], reverse=True))


def test_card_has_source_shape_and_parity(released, engine):
    """Card, export and image have the same parity; the card names the revision of the source."""
    card = released["export"]["card"]
    shown = read_json(card["uri"].replace("README.md", "card.json"))
    assert shown["source"]["revision"] == released["resolve"]["source"]["revision"]
    assert (shown["labels"], shown["settings"]["top_k"], shown["parity"]["largest_levels"]) == (7, 3, 0)
    labels = engine.inspect_image(released["build_image"]["image_id"])["Config"]["Labels"]
    assert (labels["slipway.card"], labels["slipway.parity"]) == (card["digest"], card["parity"])
