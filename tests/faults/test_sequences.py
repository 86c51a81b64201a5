"""Good and bad releases, one after the other: what serves afterwards, what the record says, and that nothing else is left."""

import json
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.stand, pytest.mark.alongside]

BAD_FLAG = {"args": ["--rest_api_port=none"]}
TOO_SMALL = {"resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"memory": "64Mi"}}}
TOO_LARGE = {"resources": {"requests": {"cpu": "1000", "memory": "64Mi"}, "limits": {"memory": "1Gi"}}}
NEVER_READY = {"command": ["sh", "-c", "sleep 1000"]}  # the server's arguments follow it and go to the shell
UNKNOWN_CLASS = {"op": "add", "path": "/spec/loadBalancerClass", "value": "example.com/nobody"}
GRACE_S, DEADLINE_S, ADDRESS_S = 15, 10, 10


@pytest.fixture(scope="module")
def harness(make_harness):
    """A harness without any release."""
    harness = make_harness("faults-sequences", target__unschedulable_grace_s=GRACE_S)
    yield harness
    harness.end()


@pytest.fixture
def good(harness):
    """What serves; if nothing does, content a is released first."""
    if "tfs-faults-sequences" not in harness.kubectl("get", "deployments", "-o", "name"):
        harness.run()
    return harness.serves()


@pytest.mark.faults
def test_no_address(harness, write_row):
    """A first release whose Service gets no address is removed completely."""
    place = harness.project / "include" / "manifests" / "overlays" / "local" / "kustomization.yaml"
    text = place.read_text()
    overlay = yaml.safe_load(text)
    overlay["patches"].append({"target": {"kind": "Service"}, "patch": yaml.safe_dump([UNKNOWN_CLASS])})
    place.write_text(yaml.safe_dump(overlay))
    with harness.changed(address_timeout_s=ADDRESS_S):
        run = harness.run(green=False)
    place.write_text(text)
    assert run.record()["outcome"] == "failed"
    assert "AddressMissing" in run.reason()
    assert (
        harness.kubectl("get", "deployment,service,hpa,pdb", "-l", f"slipway/model={harness.model}", "-o", "name") == ""
    )
    assert harness.debris() == []
    write_row(f"no LoadBalancer address within {ADDRESS_S} s (first release)", "nothing is left of it", run.detect_s())


@pytest.mark.faults
def test_good_then_a_crash_loop(harness, good, write_row):
    """A release whose server crashes is given up; the one before it serves again, has passed its gate and is recorded."""
    with harness.container(**BAD_FLAG):
        run = harness.run(green=False)
    harness.assert_given_up(run, words="CrashLoopBackOff", good=good)
    write_row("crash loop (good → bad)", "the release before it serves", run.detect_s(), run.good_s())


@pytest.mark.faults
def test_bad_then_bad(harness, good, write_row):
    """A second bad release, which runs out of memory while it loads, is given up like the first."""
    with harness.container(**TOO_SMALL):
        run = harness.run(green=False)
    harness.assert_given_up(run, words="OOMKilled", good=good)
    write_row("OOM kill at load (bad → bad)", "the last good release serves", run.detect_s(), run.good_s())


@pytest.mark.faults
def test_bad_then_good(harness, good, write_row):
    """After bad releases, a good one goes live."""
    harness.content("b")
    run = harness.run()
    harness.assert_live(run, version=2)
    write_row("bad → good", "the new release is live and proven")


@pytest.mark.faults
def test_there_and_back(harness, good, write_row):
    """A → B → A → B, then A → C: content that returns has its old version, new content a larger one, and each is proven live."""
    for letter, version in (("a", 1), ("b", 2), ("a", 1), ("c", 3)):
        harness.content(letter)
        harness.assert_live(harness.run(), version=version)
    write_row("A → B → A, A → B → A → B, A → B → A → C", "each time the requested version is live")


@pytest.mark.faults
def test_no_node_fits(harness, good, write_row):
    """A release whose pod fits no node is given up after the target's grace."""
    with harness.container(**TOO_LARGE):
        run = harness.run(green=False)
    harness.assert_given_up(run, words="Unschedulable", good=good)
    write_row(f"unschedulable (grace {GRACE_S} s)", "the release before it serves", run.detect_s(), run.good_s())


@pytest.mark.faults
def test_the_progress_deadline(harness, good, write_row):
    """A server that runs and never becomes ready is given up at the Deployment's own deadline."""

    def never(deployment):
        deployment["spec"]["progressDeadlineSeconds"] = DEADLINE_S
        deployment["spec"]["template"]["spec"]["containers"][0].update(NEVER_READY)

    with harness.overlay(never):
        run = harness.run(green=False)
    harness.assert_given_up(run, words="progress deadline", good=good)
    fault = f"never ready (progress deadline {DEADLINE_S} s)"
    write_row(fault, "the release before it serves", run.detect_s(), run.good_s())


@pytest.mark.faults
def test_the_hpa_is_at_its_maximum(harness, good, write_row):
    """A rollout with as many replicas as the HorizontalPodAutoscaler allows succeeds and keeps their number."""
    deployment = f"deployment/tfs-{harness.model}"
    harness.kubectl("scale", deployment, "--replicas=3")
    harness.kubectl("rollout", "status", deployment, "--timeout=110s")
    with harness.container(env=[{"name": "ROUND", "value": "hpa"}]):
        run = harness.run()
        harness.assert_live(run, version=good["version"])
    assert harness.get(deployment)["spec"]["replicas"] == 3
    harness.kubectl("scale", deployment, "--replicas=1")
    write_row("HPA at its maximum during a rollout", "the new release is live with as many replicas")


@pytest.mark.faults
@pytest.mark.parametrize("part", ["variables.data", "warmup"])
def test_a_broken_savedmodel(harness, good, write_row, part):
    """The smoke test finds a SavedModel that was damaged in the store: nothing is pushed, nothing applied."""
    harness.content("c" if good["version"] != 3 else "b")
    facts = {"params": {}}
    for task_id in ("resolve", "export"):
        done = harness.task(task_id, facts=facts)
        facts[task_id] = json.loads(done.stdout.splitlines()[-1])
    model = Path(facts["export"]["model_uri"].removeprefix("file://"))
    whole = model.read_bytes()
    break_layer(model, part)
    for image in harness.engine.images(filters={"label": f"slipway.content={facts['export']['content_hash']}"}):
        harness.engine.remove_image(image["Id"], force=True)
    run = harness.run(green=False)
    model.write_bytes(whole)
    harness.content({1: "a", 2: "b", 3: "c"}[good["version"]])
    harness.assert_given_up(run, words="SmokeTestFailed", good=good)
    assert run.record()["objects"] == []
    what = "corrupt SavedModel" if part == "variables.data" else "failing warmup"
    write_row(f"{what} in the store", "nothing pushed, nothing applied", run.detect_s(), 0)


@pytest.mark.faults
def test_the_disk_is_full_while_exporting(harness, good, write_row, tmp_path):
    """An export that runs out of space fails in one line and leaves nothing half written."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "slipway-test", tmp_path], check=True)
    try:
        run = harness.run(green=False, environment={**harness.environment, "TMPDIR": str(tmp_path)}, force=True)
        assert list(tmp_path.glob("slipway-task-*")) == []
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
    harness.assert_given_up(run, words="ScratchFull", good=good)
    write_row("disk full while exporting", "one red line, nothing half written", run.detect_s(), 0)


def break_layer(model, part):
    """Cut every file of a layer whose name contains `part` to half its length."""
    cut = model.with_name("cut.tar")
    with tarfile.open(model) as members, tarfile.open(cut, "w") as archive:
        found = False
        for member in members:
            content = members.extractfile(member)
            if part in member.name and member.isfile():
                member.size, found = member.size // 2, True
            archive.addfile(member, content)
    assert found, f"no {part} in the layer"
    cut.replace(model)
