"""Each task is killed with SIGKILL at random instants of its work and tried again: the result is the same."""

import time

import pytest
from random_kills import KILLS, kill_repeatedly, result

from slipway.image.build import IMAGE_LABEL_TITLE

BEFORE = ("resolve", "plan")
BUILDS = ("export", "build_image", "smoke_test", "push")
PREVIEWS = ("preview", "wait_for_preview", "preview_gate")
DEPLOYS = ("apply", "wait_for_rollout", "wait_for_address", "gate")

pytestmark = [pytest.mark.stand, pytest.mark.faults, pytest.mark.alongside]


@pytest.fixture(scope="module")
def harness(make_harness):
    """A harness in which each task has run once, undisturbed; `took_s` says how long each took."""
    harness = make_harness("faults-killed", target__strategy="preview")
    harness.took_s = {}
    for task_id in (*BEFORE, *BUILDS, *PREVIEWS, *DEPLOYS):
        began_s = time.monotonic()
        harness.facts[task_id] = result(harness.task(task_id))
        harness.took_s[task_id] = time.monotonic() - began_s
    yield harness
    harness.end()


def forced(harness):
    """The facts of a run that does everything again."""
    return {**harness.facts, "resolve": {**harness.facts["resolve"], "force": True}}


def images(harness):
    """The model's images on the engine."""
    return {found["Id"] for found in harness.engine.images(filters={"label": f"{IMAGE_LABEL_TITLE}={harness.model}"})}


def test_export(harness, write_row):
    """The exporter ends with its task; the next try leaves the same version of the same content and claims no other."""
    export, good_s = kill_repeatedly(harness, "export", forced(harness))
    assert {**export, "card": None} == {**harness.facts["export"], "card": None}
    assert [path.name for path in (harness.root / "store" / "versions" / harness.model).iterdir()] == ["1.json"]
    assert harness.debris(running=True) == []
    write_row(f"`export` killed {KILLS} times", "the same export, one version, no exporter left", good_s=good_s)


def test_build_image(harness, write_row):
    """The next try removes the killed one's container and leaves one image with the same layer."""
    for image_id in images(harness):
        harness.engine.remove_image(image_id, force=True)
    image, good_s = kill_repeatedly(harness, "build_image", harness.facts)
    own = {"image_id": "", "reference": ""}  # each image has its own tag
    assert {**image, **own} == {**harness.facts["build_image"], **own}
    assert images(harness) == {image["image_id"]}
    assert harness.debris(running=True) == []
    harness.facts["build_image"] = image
    write_row(f"`build image` killed {KILLS} times", "one image with the same layer, no container", good_s=good_s)


def test_smoke_test(harness, write_row):
    """The next try removes the killed one's server, starts another one, and proves the same image."""
    proof, good_s = kill_repeatedly(harness, "smoke_test", harness.facts)
    assert proof["image"] == harness.facts["build_image"]
    assert harness.debris(running=True) == []
    harness.facts["smoke_test"] = proof
    write_row(f"`smoke test` killed {KILLS} times", "the same image proven, no container", good_s=good_s)


def test_push(harness, write_row):
    """The registry holds one complete image, and every try reports its digest."""
    pushed, good_s = kill_repeatedly(harness, "push", harness.facts)
    assert (pushed["version"], pushed["release_id"]) == (1, result(harness.task("push"))["release_id"])
    assert harness.debris(running=True) == []
    harness.facts["push"] = pushed
    write_row(f"`push` killed {KILLS} times", "one complete image in the registry", good_s=good_s)


def test_preview(harness, write_row):
    """However often its tasks are killed, there is one preview, and nothing of it after its removal."""
    for task_id in (*PREVIEWS, "remove_preview"):
        harness.took_s.setdefault(task_id, 1.0)
        found, good_s = kill_repeatedly(harness, task_id, harness.facts)
        write_row(
            f"`{task_id.replace('_', ' ')}` killed {KILLS} times", "the same preview, deleted in the end", good_s=good_s
        )
        harness.facts[task_id] = found
    assert harness.debris(running=True) == []


def test_apply(harness, write_row):
    """However often it is tried, there is one record, and each object once and of the same generation."""
    applied, good_s = kill_repeatedly(harness, "apply", harness.facts)
    assert result(harness.task("apply")) == applied
    [record] = harness.records().values()
    assert (record["outcome"], record["release_id"]) == ("open", applied["release_id"])
    assert harness.debris(running=True) == []
    harness.facts["apply"] = applied
    write_row(f"`apply` killed {KILLS} times", "one record, each object once", good_s=good_s)


@pytest.mark.parametrize("task_id", ["wait_for_rollout", "wait_for_address", "gate", "announce"])
def test_waits(harness, write_row, task_id):
    """A wait that starts again has the same result, and `announce` announces again."""
    harness.took_s.setdefault(task_id, 1.0)
    found, good_s = kill_repeatedly(harness, task_id, harness.facts)
    harness.facts[task_id] = found
    assert harness.serves() == {"release": harness.facts["apply"]["release_id"], "version": 1}
    assert harness.debris(running=True) == []
    write_row(f"`{task_id.replace('_', ' ')}` killed {KILLS} times", "the same verdict", good_s=good_s)


def test_record(harness, write_row):
    """The record is closed once."""
    harness.took_s["record"] = 1.0
    live = {**harness.facts, "states": {"gate": "success", "record": "running"}}
    _, good_s = kill_repeatedly(harness, "record", live)
    assert [record["outcome"] for record in harness.records().values()] == ["live"]
    assert harness.debris() == []
    write_row(f"`record` killed {KILLS} times", "one record, live", good_s=good_s)


def test_resolve_plan_and_prune(harness, write_row):
    """`resolve` and `plan` have the same result again, `prune` has nothing left; a killed plan's Lease still belongs to its run."""
    facts = {
        name: fact for name, fact in forced(harness).items() if not name.endswith("/lease")
    }  # a run that starts again
    for task_id, same in (
        ("resolve", "the same release"),
        ("plan", "the same plan"),
        ("prune", "nothing more to prune"),
    ):
        harness.took_s.setdefault(task_id, 2.0)
        first = result(harness.task(task_id, facts=facts))
        found, good_s = kill_repeatedly(harness, task_id, facts)
        assert found == first if task_id != "prune" else set(found.values()) == {0}
        write_row(f"`{task_id}` killed {KILLS} times", same, good_s=good_s)
    result(harness.task("record", facts={**facts, "states": {"gate": "success", "record": "running"}}))
    assert harness.debris() == []


def test_rollback(harness, write_row):
    """However often the rollback is killed, the good release serves again, has passed its gate, and is recorded once."""
    result(harness.task("record", facts={**harness.facts, "states": {"gate": "success", "record": "running"}}))
    good, dead = harness.serves(), {"params": {}}
    with harness.container(args=["--rest_api_port=none"]):
        for task_id in (*BEFORE, "apply"):
            dead[task_id] = result(harness.task(task_id, facts=dead, run_id="dead"))
    harness.took_s["rollback"] = 7.0
    failed = {**dead, "states": {"gate": "failed", "rollback": "running"}}
    rollback, good_s = kill_repeatedly(harness, "rollback", failed, "dead")
    harness.task("record", facts={**failed, "states": {"gate": "failed"}}, run_id="dead")
    assert rollback["release"] == good["release"]
    assert sorted(found["outcome"] for found in harness.records().values()) == ["failed", "live", "live"]
    assert harness.serves() == good
    assert harness.debris() == []
    write_row(
        f"`rollback` killed {KILLS} times", "the good release serves, passed its gate, is recorded once", good_s=good_s
    )


def test_choose(harness, write_row):
    """A manual rollback chooses the same release again; the Lease that a killed try acquired still belongs to its run."""
    good = harness.serves()
    harness.took_s["choose"], facts = 2.0, {"params": {"release": good["release"]}}
    facts["choose"], good_s = kill_repeatedly(harness, "choose", facts, dag="rollback")
    assert facts["choose"]["plan"]["pushed"]["release_id"] == good["release"]
    result(harness.task("record", dag="rollback", facts=facts))
    assert harness.serves() == good
    assert harness.debris() == []
    write_row(f"`choose` of a rollback killed {KILLS} times", "the same release", good_s=good_s)
