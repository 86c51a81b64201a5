"""A sweep over variants of a live release, which a second one confirms; nothing that serves is changed. The tests run in order."""

import json
import time

import pytest
import yaml
from test_story import Story, plan_of
from trial_project import overlay_with_resources, remove_images

MODEL, LIVE = "swept", "tfs-swept"
SWEEP = {
    "overlays": ["seed", "huge"],
    "grid": {"intra_op": [1]},
    "rate_per_s": 4,
    "closed_users": 2,
    "passes": 1,
    "rounds": 3,
    "step_s": 9,
    "settle_s": 2,
}
FITTING = ["local", "seed", "local, 1 intra-op"]
HUGE = {"requests": {"cpu": "1000", "memory": "256Mi"}}
OWN = "deployment,replicaset,pod,service,endpointslice,hpa,pdb,configmap,lease"
FILES = {"sweep.json", "sweep.txt", "sweep.png", "kustomization.yaml"}
GONE_S = 600

pytestmark = [pytest.mark.stand, pytest.mark.alongside, pytest.mark.slow, pytest.mark.usefixtures("metrics_server")]


@pytest.fixture(scope="module")
def story(tmp_path_factory, surroundings, stand, kubectl, engine):
    """A model with a sweep, its first release live; all that it made is removed afterwards."""
    remove_images(engine, MODEL)
    place = Story(
        tmp_path_factory.mktemp(MODEL),
        MODEL,
        surroundings,
        stand=stand,
        kubectl=kubectl,
        engine=engine,
        target__unschedulable_grace_s=5,
        sweep=SWEEP,
    )
    huge = place.overlay.parent / "huge"
    huge.mkdir()
    (huge / "kustomization.yaml").write_text(yaml.safe_dump(overlay_with_resources("local", HUGE)))
    place.run()
    yield place
    place.end()


def left_of_sweep(story):
    """What a sweep has in the cluster, as kind/name."""
    names = story.kubectl("get", OWN, "-o", "name").split()
    own = [name for name in names if f"/{LIVE}-" in name and "-sweep-" in name]
    return [*own, *(name for name in names if name.endswith(f"/slipway-{LIVE}"))]


def swept(story):
    """One sweep: its log, and what it left in the store."""
    serving, before = story.live(), {**story.traces(), "store": None}
    log, records = story.run(f"sweep_{MODEL}")
    assert records == []
    assert (story.live(), {**story.traces(), "store": None}) == (serving, before)
    assert left_of_sweep(story) == []
    folders = story.store.glob(f"sweeps/{MODEL}/{serving['release']}/*")
    newest = max(folders, key=lambda folder: (folder / "sweep.json").stat().st_mtime)
    return log, newest, json.loads((newest / "sweep.json").read_text())


def best_of(found):
    """The recommended variant, and those that differ from it only within the noise."""
    best = found["best"][found["by"]]
    return found["recommended"], {best["variant"], *best["within_noise"]}


def test_1_a_sweep_compares_variants_and_a_second_one_confirms_it(story):
    """Both recommend the same variant, or find that the other's is within the noise. One that fits no node is a line of the table."""
    log, folder, first = swept(story)
    assert {file.name for file in folder.iterdir()} >= FILES
    rows = {row["variant"]: row for row in first["rows"]}
    assert list(rows) == ["local", "seed", "huge", "local, 1 intra-op"]
    assert "Unschedulable" in rows["huge"]["why_not"]
    assert "not measured: deployment/tfs-swept-sweep-" in log
    for name in FITTING:
        assert (rows[name]["why_not"], rows[name]["errors"], rows[name]["holds"]) == (None, {}, True), rows[name]
        assert rows[name]["p95_ms"]["low"] < rows[name]["p95_ms"]["mean"] < rows[name]["p95_ms"]["high"]
        assert rows[name]["most_per_s"]["mean"] > 4
        assert rows[name]["per_cpu_s"]["mean"] > 0
    assert yaml.safe_load((folder / "kustomization.yaml").read_text())["kind"] == "Kustomization"
    assert {step["name"] for step in json.loads((folder / "0" / "load.json").read_text())["steps"]} == {
        "4/s",
        "2 users",
    }
    _, _, second = swept(story)
    (one, beside_one), (other, beside_other) = best_of(first), best_of(second)
    assert one == other or (one in beside_other and other in beside_one), (first, second)


def test_2_the_next_run_removes_what_a_killed_sweep_left(story):
    """Its record lists the variant; a refresh that has nothing to do deletes it, and changes nothing that serves."""
    serving = story.live()
    killed = story.kill_when(
        lambda: any(name.startswith("deployment.apps/") for name in left_of_sweep(story)), dag=f"sweep_{MODEL}"
    )
    assert (killed["cause"], killed["objects"]) == ("sweep", [])
    assert {ref["name"] for ref in killed["preview"] if ref["kind"] != "ConfigMap"} == {f"{LIVE}-sweep-0"}
    log, records = story.run(break_lease=True)  # nothing reports that the killed run has ended
    assert (plan_of(log)[0], records, story.live()) == ("nothing", [], serving)
    end_s = time.monotonic() + GONE_S
    while left := left_of_sweep(story):
        assert time.monotonic() < end_s, left
        time.sleep(1)
