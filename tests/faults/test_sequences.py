"""One release after another, good and bad: what serves afterwards, what the record says, and that nothing else is left."""

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
NEVER_READY = {"command": ["sh", "-c", "sleep 1000"]}  # the server's arguments come after it, and are the shell's
NOBODY = {"op": "add", "path": "/spec/loadBalancerClass", "value": "example.com/nobody"}


@pytest.fixture(scope="module")
def road(make_road):
    """A road on which nothing has gone yet."""
    road = make_road("faults-sequences", target__unschedulable_grace_s=15)
    yield road
    road.end()


@pytest.fixture
def good(road):
    """What serves; A, brought first, where nothing does."""
    if "tfs-faults-sequences" not in road.kubectl("get", "deployments", "-o", "name"):
        road.run()
    return road.serves()


@pytest.mark.faults
def test_an_address_that_never_comes(road, tell):
    """A first release whose Service is given no address is taken away again, the whole of it."""
    place = road.project / "include" / "manifests" / "overlays" / "local" / "kustomization.yaml"
    text = place.read_text()
    overlay = yaml.safe_load(text)
    overlay["patches"].append({"target": {"kind": "Service"}, "patch": yaml.safe_dump([NOBODY])})
    place.write_text(yaml.safe_dump(overlay))
    run = road.run(green=False)
    place.write_text(text)
    assert run.record()["outcome"] == "failed"
    assert "AddressMissing" in run.reason()
    assert road.kubectl("get", "deployment,service,hpa,pdb", "-l", f"slipway/model={road.model}", "-o", "name") == ""
    assert road.debris() == []
    tell("LoadBalancer never addressed (first release)", "nothing is left of it", run.detect_s())


@pytest.mark.faults
def test_good_then_a_crash_loop(road, good, tell):
    """A release whose server crashes is given up, and the one before it serves as before, asked again and recorded."""
    with road.container(**BAD_FLAG):
        run = road.run(green=False)
    road.has_given_up(run, words="CrashLoopBackOff", good=good)
    tell("crash loop (good → bad)", "the release before it serves", run.detect_s(), run.good_s())


@pytest.mark.faults
def test_bad_then_bad(road, good, tell):
    """A second bad release, out of memory while it loads, is given up like the first."""
    with road.container(**TOO_SMALL):
        run = road.run(green=False)
    road.has_given_up(run, words="OOMKilled", good=good)
    tell("OOM kill at load (bad → bad)", "the release before both serves", run.detect_s(), run.good_s())


@pytest.mark.faults
def test_bad_then_good(road, good, tell):
    """After bad ones a good one goes live."""
    road.content("b")
    run = road.run()
    road.has_brought(run, version=2)
    tell("bad → good", "the new release is live and proven")


@pytest.mark.faults
def test_there_and_back(road, good, tell):
    """A → B → A → B, then A → C: content that comes back has its old version, new content a larger one, each proven live."""
    for letter, version in (("a", 1), ("b", 2), ("a", 1), ("c", 3)):
        road.content(letter)
        road.has_brought(road.run(), version=version)
    tell("A → B → A, A → B → A → B, A → B → A → C", "each time the version that was asked for is live")


@pytest.mark.faults
def test_no_node_fits(road, good, tell):
    """A pod that fits no node is given up after the target's grace."""
    with road.container(**TOO_LARGE):
        run = road.run(green=False)
    road.has_given_up(run, words="Unschedulable", good=good)
    tell("unschedulable (grace 15 s)", "the release before it serves", run.detect_s(), run.good_s())


@pytest.mark.faults
def test_the_progress_deadline(road, good, tell):
    """A server that runs and never becomes ready is given up at the Deployment's own deadline."""

    def never(deployment):
        deployment["spec"]["progressDeadlineSeconds"] = 20
        deployment["spec"]["template"]["spec"]["containers"][0].update(NEVER_READY)

    with road.overlay(never):
        run = road.run(green=False)
    road.has_given_up(run, words="progress deadline", good=good)
    tell("never ready (progress deadline 20 s)", "the release before it serves", run.detect_s(), run.good_s())


@pytest.mark.faults
def test_the_hpa_is_at_its_maximum(road, good, tell):
    """A rollout of as many replicas as the HorizontalPodAutoscaler allows goes through, and their number stays."""
    deployment = f"deployment/tfs-{road.model}"
    road.kubectl("scale", deployment, "--replicas=3")
    road.kubectl("rollout", "status", deployment, "--timeout=90s")
    with road.container(env=[{"name": "ROUND", "value": "hpa"}]):
        run = road.run()
        road.has_brought(run, version=good["version"])
    assert road.get(deployment)["spec"]["replicas"] == 3
    road.kubectl("scale", deployment, "--replicas=1")
    road.run()
    tell("HPA at its maximum during a rollout", "the new release is live with as many replicas")


@pytest.mark.faults
@pytest.mark.parametrize(("part", "words"), [("variables.data", "SmokeTestFailed"), ("warmup", "SmokeTestFailed")])
def test_a_broken_savedmodel(road, good, tell, part, words):
    """A SavedModel that broke in the store is found by the smoke test: nothing is pushed, nothing applied."""
    road.content("c" if good["version"] != 3 else "b")
    facts = {"params": {}}
    for task_id in ("resolve", "export"):
        done = road.task(task_id, facts=facts)
        facts[task_id] = json.loads(done.stdout.splitlines()[-1])
    model = Path(facts["export"]["model_uri"].removeprefix("file://"))
    whole = model.read_bytes()
    break_layer(model, part)
    for image in road.engine.images(filters={"label": f"slipway.content={facts['export']['content_hash']}"}):
        road.engine.remove_image(image["Id"], force=True)
    run = road.run(green=False)
    model.write_bytes(whole)
    road.content({1: "a", 2: "b", 3: "c"}[good["version"]])
    road.has_given_up(run, words=words, good=good)
    assert run.record()["objects"] == []
    what = "corrupt SavedModel" if part == "variables.data" else "failing warmup"
    tell(f"{what} in the store", "nothing pushed, nothing applied", run.detect_s(), 0)


@pytest.mark.faults
def test_the_disk_is_full_while_exporting(road, good, tell, tmp_path):
    """An export without room for it is red in one line and leaves nothing half."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "slipway-test", tmp_path], check=True)
    try:
        run = road.run(green=False, environment={**road.environment, "TMPDIR": str(tmp_path)}, force=True)
        assert list(tmp_path.glob("slipway-task-*")) == []
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)
    road.has_given_up(run, words="ScratchFull", good=good)
    tell("disk full while exporting", "one red line, nothing half written", run.detect_s(), 0)


def break_layer(model, part):
    """Cut the file of a layer whose name has this part to half of its length."""
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
