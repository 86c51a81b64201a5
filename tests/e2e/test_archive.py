"""A SavedModel archive goes from a URL to a gated release, which serves requests in batches."""

import base64
import hashlib
import json
import tarfile
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from dag_run import until
from trial_project import PROJECT, overlay_with_resources, trial_file
from untrained import refreshed_by_workers

from slipway.records.store import read_json

pytestmark = [pytest.mark.stand, pytest.mark.alongside, pytest.mark.model, pytest.mark.slow]

MODEL = "archive"
DIGITS = {"three": "3", "seven": "7", "eight": "8"}
AT_ONCE, REQUESTS = 12, 60
SMALL = {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}  # two pods fit the stand's node


@pytest.fixture(scope="module")
def archive(digits_export, tmp_path_factory):
    """The URL of digits-vit's SavedModel as tar.gz, and its hash."""
    folder = tmp_path_factory.mktemp("web")
    with tarfile.open(folder / "model.tar.gz", "w:gz") as tar:
        tar.add(digits_export / "savedmodel", "1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "savedmodel": f"http://127.0.0.1:{server.server_port}/model.tar.gz",
        "sha256": hashlib.sha256((folder / "model.tar.gz").read_bytes()).hexdigest(),
    }
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def released(archive, tmp_path_factory, surroundings, kubectl, engine):
    """The facts of a whole refresh of the archive."""
    model_file = trial_file(source=archive, target__deployment=f"tfs-{MODEL}", target__overlay="batched")
    own = {"model": MODEL, "model_file": model_file, "overlays": {"batched": overlay_with_resources("batching", SMALL)}}
    with refreshed_by_workers(tmp_path_factory.mktemp("workers"), surroundings, kubectl, engine, **own) as workers:
        yield workers.facts


def test_archive_is_live_and_gated(released, archive):
    """The gate passed over REST and gRPC; the release names the archive and its hash, and no checkpoint."""
    assert "3 of 3 rounds in a row passed" in released["gate"]
    assert "3 of 3 over gRPC, by the same version" in released["gate"]
    card = read_json(released["export"]["card"]["uri"].replace("README.md", "card.json"))
    assert released["resolve"]["source"]["revision"].endswith(archive["sha256"])
    assert card["checkpoint"] is None


def test_requests_are_served_in_batches(released, kubectl):
    """Both pods run with the overlay's batching parameters and a thread for their CPU; each of many requests gets its own answer."""

    def deployment():
        return json.loads(kubectl("get", f"deployment/tfs-{MODEL}", "-o", "json"))

    [container] = deployment()["spec"]["template"]["spec"]["containers"]
    assert {"--enable_batching", "--batching_parameters_file=/etc/tf-serving/batching.txt"} <= set(container["args"])
    until(
        lambda: deployment()["status"].get("readyReplicas") == 2,
        "the HorizontalPodAutoscaler has started the second pod",
    )
    kept = kubectl("exec", f"deployment/tfs-{MODEL}", "--", "cat", "/etc/tf-serving/batching.txt")
    assert kept == (PROJECT / "include" / "manifests" / "overlays" / "batching" / "batching.txt").read_text()

    command = kubectl("exec", f"deployment/tfs-{MODEL}", "--", "cat", "/proc/1/cmdline").split("\0")
    threads = ("--tensorflow_inter_op_parallelism=1", "--tensorflow_intra_op_parallelism=1")  # of 100m, rounded up
    assert set(threads) <= set(command)

    def answer(name):
        picture = (PROJECT / "include" / "served" / "digits-vit" / "golden" / f"{name}.png").read_bytes()
        body = json.dumps({"instances": [base64.urlsafe_b64encode(picture).decode()]}).encode()
        url = f"{released['wait_for_address'].rstrip('/')}/v1/models/{MODEL}:predict"
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=600) as response:
            return json.loads(response.read())["predictions"][0]["label"]

    names = [list(DIGITS)[number % 3] for number in range(REQUESTS)]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        assert list(pool.map(answer, names)) == [DIGITS[name] for name in names]
