"""A SavedModel archive goes from a URL to a release that is gated and loaded, and serves requests in batches."""

import hashlib
import json
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import yaml
from dag_run import until
from test_story import Story
from trial_project import PROJECT, overlay_with_resources, remove_images

from slipway.records.store import read_json
from slipway.serving.metrics import PAGE, read_page

pytestmark = [pytest.mark.stand, pytest.mark.alongside, pytest.mark.model, pytest.mark.slow]

MODEL = "archive"
USERS = 12
LOAD = {"rate_per_s": 8, "rounds": 3, "step_s": 5, "settle_s": 1}
BATCHES = ":tensorflow:serving:batching_session:wrapped_run_count"
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
def story(request, archive, tmp_path_factory, surroundings):
    """The archive as a model whose previews are loaded, served in batches by two small pods; `record` is its first release's."""
    parts = {name: request.getfixturevalue(name) for name in ("stand", "kubectl", "engine")}
    remove_images(parts["engine"], MODEL)
    place = Story(
        tmp_path_factory.mktemp(MODEL),
        MODEL,
        surroundings,
        **parts,
        source=archive,
        target__overlay="batched",
        target__strategy="preview",
        gate__load=LOAD,
        load_test={"rates_per_s": [LOAD["rate_per_s"]], "closed_users": [USERS], "step_s": 6, "settle_s": 1},
    )
    overlay = place.project / "include" / "manifests" / "overlays" / "batched"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(overlay_with_resources("batching", SMALL)))
    _, [place.record] = place.run()
    yield place
    place.end()


def test_archive_is_live_gated_and_loaded(story, archive):
    """The gate passed over REST and gRPC, and the preview under load; the release names the archive and its hash, and no checkpoint."""
    record = story.record
    card = read_json(record["export"]["card"]["uri"].replace("README.md", "card.json"))
    gate, load = (record["verdicts"][name]["reason"] for name in ("gate", "preview_load"))
    assert record["outcome"] == "live"
    assert "3 of 3 rounds in a row passed" in gate
    assert "3 of 3 over gRPC, by the same version" in gate
    assert f"requests at {LOAD['rate_per_s']}/s, each answered correctly" in load
    assert [one["errors"] for one in record["verdicts"]["preview_load"]["measured"]["load"]["rounds"]] == [{}] * LOAD[
        "rounds"
    ]
    assert record["release"]["source"]["revision"].endswith(archive["sha256"])
    assert card["checkpoint"] is None


def test_pods_have_the_batches_of_the_overlay_and_threads_for_their_cpu(story, kubectl):
    """Both pods run, with the overlay's batching parameters and one thread."""

    def deployment():
        return json.loads(kubectl("get", f"deployment/{story.deployment}", "-o", "json"))

    [container] = deployment()["spec"]["template"]["spec"]["containers"]
    assert {"--enable_batching", "--batching_parameters_file=/etc/tf-serving/batching.txt"} <= set(container["args"])
    until(
        lambda: deployment()["status"].get("readyReplicas") == 2,
        "the HorizontalPodAutoscaler has started the second pod",
    )
    kept = kubectl("exec", f"deployment/{story.deployment}", "--", "cat", "/etc/tf-serving/batching.txt")
    assert kept == (PROJECT / "include" / "manifests" / "overlays" / "batching" / "batching.txt").read_text()
    command = kubectl("exec", f"deployment/{story.deployment}", "--", "cat", "/proc/1/cmdline").split("\0")
    threads = ("--tensorflow_inter_op_parallelism=1", "--tensorflow_intra_op_parallelism=1")  # of 100m, rounded up
    assert set(threads) <= set(command)


def test_many_users_are_served_in_batches(story):
    """Each of their requests, over REST and gRPC, gets its own answer, and the servers run fewer batches than they answer predictions."""
    before = served(story)
    story.run(f"load_test_{MODEL}")
    after = served(story)
    folder = f"loads/{MODEL}/{story.record['release_id']}/*/load.json"
    figures = json.loads(max(story.store.glob(folder), key=lambda file: file.stat().st_mtime).read_text())
    rate, closed = figures["steps"]
    print(
        f"{USERS} users: {closed['reached_per_s']} answers/s, p95 {closed['p95_ms']} ms; before {before}, after {after}"
    )
    assert (rate["errors"], closed["errors"], figures["holds_up_to_per_s"]) == ({}, {}, LOAD["rate_per_s"])
    assert set(closed["by_protocol"]) == {"grpc", "rest"}
    assert closed["reached_per_s"] > LOAD["rate_per_s"]
    answered, batches = (new - old for new, old in zip(after, before, strict=True))
    assert 0 < batches < answered


def served(story):
    """How many predictions the release's servers have answered so far, and how many batches they have run."""
    pods = json.loads(story.kubectl("get", "pods", "-l", f"slipway/release={story.record['release_id']}", "-o", "json"))
    raw = f"/api/v1/namespaces/{story.stand['namespace']}/pods"
    pages = [
        story.kubectl("get", "--raw", f"{raw}/{pod['metadata']['name']}:8501/proxy{PAGE}") for pod in pods["items"]
    ]
    lines = [line for page in pages for line in page.splitlines() if line.startswith(BATCHES)]
    return sum(read_page(page, MODEL).answered for page in pages), sum(int(line.rpartition(" ")[2]) for line in lines)
