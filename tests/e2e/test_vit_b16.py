"""A checkpoint of ViT-B/16's size goes from a folder to a gated release; prints the time and memory of each task."""

import base64
import json
import urllib.request

import pytest
from trial_project import overlay_with_resources
from untrained import Untrained, refreshed_by_workers
from workers import TASKS

from slipway.records.store import read_json

pytestmark = [pytest.mark.stand, pytest.mark.alongside, pytest.mark.model, pytest.mark.slow]

MODEL = "vitb16"
PARAMETERS = 86_567_656
ROOM = {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"memory": "4Gi"}}  # the base's limit


@pytest.fixture(scope="module")
def checkpoint(model_python, tmp_path_factory):
    """A checkpoint with the sizes of google/vit-base-patch16-224, and random weights."""
    return Untrained.make(model_python, "vit-b16", tmp_path_factory.mktemp("large"))


@pytest.fixture(scope="module")
def workers(checkpoint, tmp_path_factory, surroundings, kubectl, engine):
    """The workers of a whole refresh."""
    own = {
        "model": MODEL,
        "model_file": checkpoint.model_file(MODEL, overlay="roomy"),
        "overlays": {"roomy": overlay_with_resources("local", ROOM)},
    }
    root = tmp_path_factory.mktemp("workers")
    with refreshed_by_workers(root, surroundings, kubectl, engine, files=checkpoint.folder, **own) as done:
        yield done


def test_it_is_live_and_gated(workers, checkpoint, kubectl):
    """The gate passed, and the public address gives 🤗's own answer."""
    facts = workers.facts
    assert "2 of 2 rounds in a row passed" in facts["gate"]
    card = read_json(facts["export"]["card"]["uri"].replace("README.md", "card.json"))
    assert (card["parameters"], card["labels"]) == (PARAMETERS, 1000)
    body = json.dumps({"instances": [base64.urlsafe_b64encode(checkpoint.image).decode()]}).encode()
    url = f"{facts['wait_for_address'].rstrip('/')}/v1/models/{MODEL}:predict"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=600) as response:
        [answer] = json.loads(response.read())["predictions"]
    assert answer == {"label": checkpoint.label, "confidence": pytest.approx(checkpoint.confidence, abs=1e-4)}
    print("| task | seconds | MiB |\n| --- | ---: | ---: |")
    for task_id in TASKS:
        seconds, mib = workers.spent[task_id]
        print(f"| {task_id} | {seconds:.1f} | {mib} |")
    peaks = kubectl("exec", f"deployment/tfs-{MODEL}", "--", "sh", "-c", "grep -h VmHWM /proc/[0-9]*/status")
    largest_kib = max(int(words.split()[1]) for words in peaks.splitlines())
    print(f"The server needed at most {largest_kib // 1024} MiB.")
