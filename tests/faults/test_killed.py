"""Each task killed with SIGKILL from outside, at seeded random instants of its work, and tried again: it converges to the same result."""

import time

import pytest
from kills import KILLS, kill_again_and_again, result

from slipway.image.build import IMAGE_LABEL_TITLE

BEFORE = ("resolve", "plan")
BUILDS = ("export", "build_image", "smoke_test", "push")
PREVIEWS = ("preview", "wait_for_preview", "preview_gate")
DEPLOYS = ("apply", "wait_for_rollout", "wait_for_address", "gate")

pytestmark = [pytest.mark.stand, pytest.mark.faults]


@pytest.fixture(scope="module")
def road(make_road):
    """A road on which each task has run once, unharmed; how long each took is in `took_s`."""
    road = make_road("faults-killed", target__strategy="preview")
    road.took_s = {}
    for task_id in (*BEFORE, *BUILDS, *PREVIEWS, *DEPLOYS):
        began_s = time.monotonic()
        road.facts[task_id] = result(road.task(task_id))
        road.took_s[task_id] = time.monotonic() - began_s
    yield road
    road.end()


def forced(road):
    """The facts of a run that does all of it again."""
    return {**road.facts, "resolve": {**road.facts["resolve"], "force": True}}


def images(road):
    """The model's images on the engine."""
    return {found["Id"] for found in road.engine.images(filters={"label": f"{IMAGE_LABEL_TITLE}={road.model}"})}


def test_export(road, tell):
    """An exporter dies with its task, and the next try leaves the same version of the same content; no other version is claimed."""
    export, good_s = kill_again_and_again(road, "export", forced(road))
    assert {**export, "card": None} == {**road.facts["export"], "card": None}
    assert [path.name for path in (road.root / "store" / "versions" / road.model).iterdir()] == ["1.json"]
    assert road.debris(running=True) == []
    tell(f"`export` killed {KILLS} times", "the same export, one version, no exporter left", good_s=good_s)


def test_build_image(road, tell):
    """The next try takes the dead one's container away and leaves one image with the same layer."""
    for image_id in images(road):
        road.engine.remove_image(image_id, force=True)
    image, good_s = kill_again_and_again(road, "build_image", road.facts)
    assert {**image, "image_id": ""} == {**road.facts["build_image"], "image_id": ""}
    assert images(road) == {image["image_id"]}
    assert road.debris(running=True) == []
    road.facts["build_image"] = image
    tell(f"`build image` killed {KILLS} times", "one image with the same layer, no container", good_s=good_s)


def test_smoke_test(road, tell):
    """The next try takes the dead one's server away, asks a new one, and proves the same image."""
    proof, good_s = kill_again_and_again(road, "smoke_test", road.facts)
    assert proof["image"] == road.facts["build_image"]
    assert road.debris(running=True) == []
    road.facts["smoke_test"] = proof
    tell(f"`smoke test` killed {KILLS} times", "the same image proven, no container", good_s=good_s)


def test_push(road, tell):
    """The registry holds one image, whole, whose digest every try reports."""
    pushed, good_s = kill_again_and_again(road, "push", road.facts)
    assert (pushed["version"], pushed["release_id"]) == (1, result(road.task("push"))["release_id"])
    assert road.debris(running=True) == []
    road.facts["push"] = pushed
    tell(f"`push` killed {KILLS} times", "one image in the registry, whole", good_s=good_s)


def test_preview(road, tell):
    """One preview, however often it was made, waited for and asked; and nothing of it once it was removed, however often that was."""
    for task_id in (*PREVIEWS, "remove_preview"):
        road.took_s.setdefault(task_id, 1.0)
        found, good_s = kill_again_and_again(road, task_id, road.facts)
        tell(f"`{task_id.replace('_', ' ')}` killed {KILLS} times", "the same preview, gone in the end", good_s=good_s)
        road.facts[task_id] = found
    assert road.debris(running=True) == []


def test_apply(road, tell):
    """One record, the objects once, and of the same generation however often it was tried."""
    applied, good_s = kill_again_and_again(road, "apply", road.facts)
    assert result(road.task("apply")) == applied
    [record] = road.records().values()
    assert (record["outcome"], record["release_id"]) == ("open", applied["release_id"])
    assert road.debris(running=True) == []
    road.facts["apply"] = applied
    tell(f"`apply` killed {KILLS} times", "one record, each object once", good_s=good_s)


@pytest.mark.parametrize("task_id", ["wait_for_rollout", "wait_for_address", "gate", "announce"])
def test_waits(road, tell, task_id):
    """A wait that begins anew finds the same, and what is announced is announced again."""
    road.took_s.setdefault(task_id, 1.0)
    found, good_s = kill_again_and_again(road, task_id, road.facts)
    road.facts[task_id] = found
    assert road.serves() == {"release": road.facts["apply"]["release_id"], "version": 1}
    assert road.debris(running=True) == []
    tell(f"`{task_id.replace('_', ' ')}` killed {KILLS} times", "the same verdict", good_s=good_s)


def test_record(road, tell):
    """The record is closed once."""
    road.took_s["record"] = 1.0
    live = {**road.facts, "states": {"gate": "success", "record": "running"}}
    _, good_s = kill_again_and_again(road, "record", live)
    assert [record["outcome"] for record in road.records().values()] == ["live"]
    assert road.debris() == []
    tell(f"`record` killed {KILLS} times", "one record, live", good_s=good_s)


def test_resolve_plan_and_prune(road, tell):
    """What is read is read again, and the Lease that a dead plan took is its own run's; what was pruned is gone once."""
    facts = {name: fact for name, fact in forced(road).items() if not name.endswith("/lease")}  # a run that begins anew
    for task_id, same in (
        ("resolve", "the same release"),
        ("plan", "the same plan"),
        ("prune", "nothing more to prune"),
    ):
        road.took_s.setdefault(task_id, 2.0)
        first = result(road.task(task_id, facts=facts))
        found, good_s = kill_again_and_again(road, task_id, facts)
        assert found == first if task_id != "prune" else set(found.values()) == {0}
        tell(f"`{task_id}` killed {KILLS} times", same, good_s=good_s)
    result(road.task("record", facts={**facts, "states": {"gate": "success", "record": "running"}}))
    assert road.debris() == []


def test_rollback(road, tell):
    """What a dead run applied is undone once, however often the rollback is killed: the good release serves, gated, recorded once."""
    result(road.task("record", facts={**road.facts, "states": {"gate": "success", "record": "running"}}))
    good, dead = road.serves(), {"params": {}}
    with road.container(args=["--rest_api_port=none"]):
        for task_id in (*BEFORE, "apply"):
            dead[task_id] = result(road.task(task_id, facts=dead, run_id="dead"))
    road.took_s["rollback"] = 20.0
    failed = {**dead, "states": {"gate": "failed", "rollback": "running"}}
    undone, good_s = kill_again_and_again(road, "rollback", failed, "dead")
    road.task("record", facts={**failed, "states": {"gate": "failed"}}, run_id="dead")
    assert undone["release"] == good["release"]
    assert sorted(found["outcome"] for found in road.records().values()) == ["failed", "live", "live"]
    assert road.serves() == good
    assert road.debris() == []
    tell(f"`rollback` killed {KILLS} times", "the good release serves, gated, recorded once", good_s=good_s)


def test_choose(road, tell):
    """A rollback by hand chooses the same release again, and the Lease that a dead try took is its own run's."""
    good = road.serves()
    road.took_s["choose"], facts = 2.0, {"params": {"release": good["release"]}}
    facts["choose"], good_s = kill_again_and_again(road, "choose", facts, dag="rollback")
    assert facts["choose"]["plan"]["pushed"]["release_id"] == good["release"]
    result(road.task("record", dag="rollback", facts=facts))
    assert road.serves() == good
    assert road.debris() == []
    tell(f"`choose` of a rollback killed {KILLS} times", "the same release", good_s=good_s)
